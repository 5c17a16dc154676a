//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// floods connects so often, and is refused each time.
func floods(args string) string {
	times, at, _ := strings.Cut(args, " ")
	to := netip.MustParseAddrPort(at)
	fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	for n, _ := strconv.Atoi(times); n > 0; n-- {
		if err := connectTo(fd, to); err != unix.EACCES {
			return "not refused"
		}
	}
	return "refused"
}

// A program that is refused faster than that can be told hides nothing: how many are not
// told is.
func TestWhatIsNotToldIsCounted(t *testing.T) {
	const connects = 50_000
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(25))}}, nil)
	var told, untold atomic.Int64
	flooded := make(chan struct{})
	s.opts.OnBlocked = func(enforce.Denial) { <-flooded; told.Add(1) }
	s.opts.Logf = func(format string, args ...any) {
		if strings.HasSuffix(format, "than could be told") {
			untold.Add(int64(args[0].(uint64)))
		}
	}
	defer s.attach(t).Close()
	require.Equal(t, []string{"refused"}, s.run(t, "floods/"+strconv.Itoa(connects)+" 127.0.0.1:25"))
	close(flooded)
	require.Eventually(t, func() bool { return told.Load()+untold.Load() == connects }, time.Minute, time.Millisecond, "each is told or counted")
	require.NotZero(t, untold.Load())
}
