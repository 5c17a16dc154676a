package carry

import (
	"cmp"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
)

// Bounds are how much a backend carries at once.
type Bounds struct{ Connections, Flows int64 }

// Bound returns the bounds that are wanted, zero for what the descriptors of this process are enough
// for: a connection takes two, and six while an end does not read, a flow of datagrams up to perFlow.
func Bound(connections, flows, perFlow int64) (Bounds, error) {
	most, err := Descriptors()
	if err != nil {
		return Bounds{}, err
	}
	b := Bounds{cmp.Or(connections, most/4), cmp.Or(flows, min(most/(2*perFlow), DefaultFlows))}
	if b.Connections < 0 || b.Connections > most/2 {
		return b, fmt.Errorf("%d connections at once: expected 1 to %d, as each takes two descriptors, of which this process may have %d (RLIMIT_NOFILE): ulimit -n gives a shell more, LimitNOFILE= a service", b.Connections, most/2, most)
	}
	return b, nil
}

// Descriptors are how many this process may have.
func Descriptors() (int64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("getrlimit RLIMIT_NOFILE: %w", err)
	}
	return int64(min(limit.Cur, 1<<40)), nil // There may be no limit.
}

// Probe says what the descriptors of this process are enough for.
func Probe(command string, perFlow int64) enforce.Capability {
	const few = 256 // connections, which a browser and its pages can have
	c := enforce.Capability{Name: "descriptors", Command: command, Need: enforce.Optional, Detail: "each connection that is carried takes some"}
	most, err := Descriptors()
	if err != nil {
		c.Found(err)
		return c
	}
	b, err := Bound(0, 0, perFlow)
	says := fmt.Sprintf("%d (RLIMIT_NOFILE) carry %d connections and %d flows of datagrams at once", most, b.Connections, b.Flows)
	if err == nil && b.Connections < few {
		err = errors.New(says)
	}
	if c.Found(err); err != nil {
		c.Remedy = "ulimit -n 65536 in its shell, LimitNOFILE=65536 in its service"
	} else {
		c.Detail = says + ", unless --max-connections says otherwise"
	}
	return c
}
