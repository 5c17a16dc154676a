// Command embed-clients shows that other people's clients need no more than a
// dialer: gRPC and database/sql connect through a policy, and say what blocked
// them.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	wire "github.com/jeroenrinzema/psql-wire"
	"github.com/lib/pq"
	"github.com/lib/pq/oid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	engine := host.New(host.Options{})
	enforcer := ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)})
	defer enforcer.Close()
	client, closeClient, err := wsknet.NewClient(wsk.Options{ALE: enforcer, Process: wsk.Process{ID: uint32(os.Getpid()), AppID: "embed-clients"}})
	if err != nil {
		return err
	}
	defer closeClient()
	dialer := &wsknet.Dialer{Client: client}

	rpc, closeRPC, err := serveRPC()
	if err != nil {
		return err
	}
	defer closeRPC()
	db, closeDB, err := serveDB()
	if err != nil {
		return err
	}
	defer closeDB()

	for _, policy := range [][]fwpm.Filter{nil, {
		{ID: 1, Name: "nothing goes out", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock},
		{ID: 2, Name: "nothing goes out", Layer: fwpm.LayerALEAuthConnectV6, Action: fwp.ActionBlock},
	}} {
		if err := engine.Update(func(p *fwpm.Policy) error { p.Filters = policy; return nil }); err != nil {
			return err
		}
		fmt.Fprintln(out, "gRPC:", answer(checkHealth(ctx, dialer, rpc)))
		fmt.Fprintln(out, "database/sql:", answer(query(ctx, dialer, db)))
	}
	return nil
}

func answer(text string, err error) string {
	if err != nil {
		return err.Error()
	}
	return text
}

// checkHealth is a gRPC client: WithContextDialer takes the dialer.
func checkHealth(ctx context.Context, d *wsknet.Dialer, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return r.GetStatus().String(), err
}

// query is a client of database/sql: a driver's connector takes the dialer.
func query(ctx context.Context, d *wsknet.Dialer, addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	c, err := pq.NewConnector("sslmode=disable user=app host=" + host + " port=" + port)
	if err != nil {
		return "", err
	}
	c.Dialer(pqDialer{d})
	db := sql.OpenDB(c)
	defer db.Close()
	var greeting string
	err = db.QueryRowContext(ctx, "SELECT greeting").Scan(&greeting)
	return greeting, err
}

// pqDialer has the two methods more that the driver had before contexts.
type pqDialer struct{ *wsknet.Dialer }

func (d pqDialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, addr)
}

func (d pqDialer) DialTimeout(network, addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, addr)
}

func serveRPC() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	return l.Addr().String(), s.Stop, nil
}

// serveDB answers every query over PostgreSQL's protocol with one row.
func serveDB() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	columns := wire.Columns{{Name: "greeting", Oid: uint32(oid.T_text)}}
	s, err := wire.NewServer(func(context.Context, wire.Query) (wire.PreparedStatements, error) {
		return wire.Prepared(wire.NewStatement(func(_ context.Context, w wire.DataWriter, _ []wire.Parameter) error {
			if err := w.Row([]any{"hello"}); err != nil {
				return err
			}
			return w.Complete("SELECT 1")
		}, wire.WithColumns(columns))), nil
	}, wire.Logger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return "", nil, err
	}
	go s.Serve(l)
	return l.Addr().String(), func() { s.Close() }, nil
}
