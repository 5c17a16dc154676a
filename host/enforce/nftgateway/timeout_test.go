//go:build linux

package nftgateway

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
)

// Who runs the gateway hears which connections end because who is outside does not answer, or not
// any more.
func TestConnectionsThatTimeOutAreTold(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		for key, value := range map[string]string{"tcp_retries2": "1", "tcp_syn_retries": "1", "tcp_syn_linear_timeouts": "0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+key, []byte(value), 0o644); key != "tcp_syn_linear_timeouts" { // Not in each kernel.
				require.NoError(t, err)
			}
		}
		var l net.Listener
		n.at(n.outside, func() {
			var err error
			l, err = net.Listen("tcp4", "198.18.1.2:0")
			require.NoError(t, err)
		})
		defer l.Close()
		told := make(chan string, 100)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }})
		require.NoError(t, err)
		defer g.Close()
		carried, err := n.dial(n.inside, "tcp4", l.Addr().String())
		require.NoError(t, err)
		defer carried.Close()
		far, err := l.Accept()
		require.NoError(t, err)
		defer far.Close()

		c, err := nftables.New(nftables.WithNetNSFd(int(n.outside)))
		require.NoError(t, err)
		table := c.AddTable(&nftables.Table{Name: "mute", Family: nftables.TableFamilyINet})
		in := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
		require.NoError(t, c.Flush())
		hears := func(of net.Conn) {
			want := regexp.MustCompile(`^nftgateway: a connection from ` + regexp.QuoteMeta(of.LocalAddr().String()) + ` to ` + regexp.QuoteMeta(l.Addr().String()) + ` ends, as nobody answers: .*timed out`)
			for {
				select {
				case s := <-told:
					if strings.Contains(s, "nobody answers") {
						require.Regexp(t, want, s)
						return
					}
				case <-time.After(waitTime):
					t.Fatal("nobody is told")
				}
			}
		}
		_, err = carried.Write([]byte("x"))
		require.NoError(t, err)
		hears(carried)
		never, err := n.dial(n.inside, "tcp4", l.Addr().String())
		require.NoError(t, err)
		defer never.Close()
		hears(never)
	})
}
