package recorder_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/flight/recorder"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
)

// A program that keeps what its policy decides, for calloutd replay and diff.
func Example() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "flight")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "product.flight")
	out, err := flight.Append(file, flight.Header{Policy: "conditions"})
	if err != nil {
		log.Fatal(err)
	}
	r := policyrun.New(policyrun.Options{
		Journals: true, // replay tells callouts what they were told.
		Classifier: func(p *policyrun.Policy) fwps.Classifier {
			return recorder.New(recorder.Options{Classifier: p.Engine, Write: out.Write, Proxy: p.ProxyID, OnError: func(err error) { log.Print(err) }})
		},
	})
	if err := r.Load(ctx, "../../../examples/conditions/policy.yaml"); err != nil {
		log.Fatal(err)
	}
	dialer, err := r.Dialer()
	if err != nil {
		log.Fatal(err)
	}
	_, err = dialer.DialContext(ctx, "tcp", "192.0.2.7:25")
	fmt.Println("denied:", errors.Is(err, os.ErrPermission))
	r.Close()
	_, err = dialer.DialContext(ctx, "tcp", "192.0.2.7:25")
	fmt.Println("closed:", errors.Is(err, net.ErrClosed))
	if err := out.Close(); err != nil { // After the runner, which writes until then.
		log.Fatal(err)
	}

	in, err := os.Open(file)
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	for entries := flight.NewReader(in); ; {
		e, err := entries.Next()
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(e.Remote, e.Outcome.Action, e.Outcome.FilterName)
	}
	// Output:
	// denied: true
	// closed: true
	// 192.0.2.7:25 block no mail but by the mail program
	// EOF
}
