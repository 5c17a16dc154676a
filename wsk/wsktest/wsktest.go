package wsktest

import (
	"errors"
	"os"
	"testing"

	"github.com/calloutd/calloutd/wsk"
)

// Run runs every case, against a provider with the given debug options.
func Run(t *testing.T, debug wsk.Debug) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.code != "" {
				coded[c.code](t, debug)
				return
			}
			c.run(t, debug)
		})
	}
}

func (c Case) run(t *testing.T, debug wsk.Debug) {
	script, err := parseScript(c)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(debug)
	err = w.run(script)
	endErr := w.end()
	switch {
	case errors.Is(err, errSkip) && os.Getenv("CI") == "": // CI has it.
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	case endErr != nil:
		t.Fatalf("%s:%d: %v", c.file, c.line, endErr)
	}
}
