package explore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const request = `{"connection":{"to":"198.51.100.7:80","protocol":"tcp"}}`

// start serves a policy that answers with one event.
func start(t *testing.T, look func(context.Context, explore.Question) ([]json.RawMessage, error)) (s *explore.Server, url string) {
	t.Helper()
	if look == nil {
		look = func(context.Context, explore.Question) ([]json.RawMessage, error) {
			return []json.RawMessage{json.RawMessage(`{"event":"connect"}`)}, nil
		}
	}
	s = explore.New(explore.Options{Policies: []string{"policy.yaml"}, Cases: func(policy string) []explore.Case {
		return []explore.Case{{Name: "of " + policy, Action: "block", Connection: explore.Connection{To: "192.0.2.7:25"}}}
	}, Look: look, Problems: func(err error) []json.RawMessage {
		b, _ := json.Marshal(map[string]string{"message": err.Error()})
		return []json.RawMessage{b}
	}})
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s, srv.URL + s.Path()
}

type change func(*http.Request)

func header(name, value string) change { return func(r *http.Request) { r.Header.Set(name, value) } }

func ask(t *testing.T, method, url, body string, changes ...change) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, c := range changes {
		c(req)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(b)
}

func TestAnswers(t *testing.T) {
	_, url := start(t, nil)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"the policies and their cases", "GET", "api/policies", "", 200, `[{"name":"policy.yaml","cases":[{"name":"of policy.yaml","action":"block","connection":` +
			`{"program":"","user":"","groups":"","pid":"","to":"192.0.2.7:25","from":"","protocol":"","host_name":"","peer_name":"","inbound":false}}]}]`},
		{"what happened", "POST", "api/look", request, 200, `{"events":[{"event":"connect"}]}`},
		{"a mistake has its place", "POST", "api/look", strings.Replace(request, ":80", ":x", 1), 200, `{"mistakes":[{"field":"to","at":13,"length":1,"message":"a port is a number from 0 to 65535"}]}`},
		{"no request", "POST", "api/look", `{"connection":`, 400, `{"error":"byte 14: unexpected EOF"}`},
		{"too long a request", "POST", "api/look", strings.Repeat(" ", explore.MaxRequest+1), 413, `{"error":"the request is longer than 65536 bytes or did not come whole: http: request body too large"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := ask(t, c.method, url+c.path, c.body)
			require.Equal(t, c.status, res.StatusCode)
			require.Equal(t, c.want, strings.TrimSpace(body))
			require.Equal(t, "application/json", res.Header.Get("Content-Type"))
		})
	}
}

func TestAPolicyWithMistakesIsAnAnswer(t *testing.T) {
	_, url := start(t, func(context.Context, explore.Question) ([]json.RawMessage, error) { return nil, errors.New("line 3") })
	res, body := ask(t, "POST", url+"api/look", request)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.JSONEq(t, `{"problems":[{"message":"line 3"}]}`, body)
}

// A browser lets the page do nothing but what is meant.
func TestThePageIsClosedToOthers(t *testing.T) {
	_, url := start(t, nil)
	res, body := ask(t, "GET", url, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
			"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		require.Equal(t, want, res.Header.Get(name), name)
	}
	require.NotRegexp(t, `(?i)<style|\son\w+=|\sstyle=|javascript:|https?://`, body)
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(body, -1) {
		res, _ := ask(t, "GET", url+m[1], "")
		require.Equal(t, http.StatusOK, res.StatusCode, m[1])
		require.Equal(t, map[string]string{".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[path.Ext(m[1])]+"; charset=utf-8", res.Header.Get("Content-Type"))
	}
	require.Contains(t, body, `<script type="module" src="app.js"></script>`)
}

func TestOtherPagesAreRefused(t *testing.T) {
	_, url := start(t, nil)
	host := func(h string) change { return func(r *http.Request) { r.Host = h } }
	for _, c := range []struct {
		name, method string
		how          change
		says         string // empty: let through
	}{
		{"DNS rebinding: a name that points here", "GET", host("evil.example"), `not as "evil.example"`},
		{"DNS rebinding: with a port", "POST", host("evil.example:80"), `not as "evil.example:80"`},
		{"DNS rebinding: a name that looks like an address", "POST", host("127.0.0.1.evil.example"), `not as "127.0.0.1.evil.example"`},
		{"no host", "POST", host("[]"), "not as"},
		{"another origin", "POST", header("Origin", "http://evil.example"), `the request comes from a page of "http://evil.example"`},
		{"another port of this host", "POST", header("Origin", "http://127.0.0.1:1"), "the request comes from a page of"},
		{"no origin that can be named", "POST", header("Origin", "null"), "the request comes from a page of"},
		{"a page of another site", "POST", header("Sec-Fetch-Site", "cross-site"), "the request comes from a page of another site"},
		{"an image of another site", "GET", header("Sec-Fetch-Site", "cross-site"), "the request comes from a page of another site"},
		{"a form", "POST", header("Content-Type", "text/plain"), "expected application/json, which other sites cannot send"},
		{"a link", "GET", func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
		}, ""},
		{"its own page", "POST", header("Sec-Fetch-Site", "same-origin"), ""},
		{"an address that was typed", "GET", header("Sec-Fetch-Site", "none"), ""},
		{"localhost", "GET", host("localhost:8600"), ""},
		{"an IPv6 address", "GET", host("[::1]:8600"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, body := "", ""
			if c.method == "POST" {
				path, body = "api/look", request
			}
			res, answer := ask(t, c.method, url+path, body, c.how)
			if c.says == "" {
				require.Equal(t, http.StatusOK, res.StatusCode)
				return
			}
			require.Equal(t, http.StatusForbidden, res.StatusCode)
			require.Contains(t, answer, c.says)
		})
	}
}

func TestWithoutTheTokenThereIsNothing(t *testing.T) {
	s, url := start(t, nil)
	root := strings.TrimSuffix(url, s.Path()[1:])
	other, _ := start(t, nil)
	require.NotEqual(t, s.Path(), other.Path())
	for _, path := range []string{"", "index.html", "api/policies", other.Path()[1:]} {
		res, body := ask(t, "GET", root+path, "")
		require.Equal(t, http.StatusNotFound, res.StatusCode, path)
		require.Contains(t, body, "put what your link has after # behind the one that it printed")
	}
}

func TestPagesHearOfChanges(t *testing.T) {
	s, url := start(t, nil)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"api/changes", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	lines := bufio.NewReader(res.Body)
	for _, want := range []string{"data: 0\n", "data: 1\n", "data: 2\n"} {
		got, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, want, got)
		_, err = lines.ReadString('\n')
		require.NoError(t, err)
		s.Changed()
	}
}

// A page hears of changes for longer than a request may take to come.
func TestPagesHearOfChangesForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // The clock is the test's.
		s, l := explore.New(explore.Options{}), make(pipes)
		srv := &http.Server{Handler: s.Handler(), ReadTimeout: time.Second}
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(l) }()
		web := http.Client{Transport: &http.Transport{DialContext: l.dial}}
		res, err := web.Get("http://127.0.0.1" + s.Path() + "api/changes")
		require.NoError(t, err)
		time.Sleep(time.Hour)
		s.Changed()
		lines := bufio.NewReader(res.Body)
		for _, want := range []string{"data: 0\n", "\n", "data: 1\n"} {
			got, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		// One that says nothing is let go after a second.
		began := time.Now()
		silent, err := l.dial(t.Context(), "", "")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, silent)
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, res.Body.Close())
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
}

// pipes is a listener whose connections are in memory.
type pipes chan net.Conn

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p <- there
	return here, nil
}

func (p pipes) Accept() (net.Conn, error) {
	c, there := <-p
	if !there {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return new(net.TCPAddr) }

func TestServeEndsWithItsContext(t *testing.T) {
	s, _ := start(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, l) }()
	res, err := http.Get("http://" + l.Addr().String() + s.Path() + "api/changes") // It does not end by itself.
	require.NoError(t, err)
	defer res.Body.Close()
	stop()
	require.NoError(t, <-ended)
	http.DefaultClient.CloseIdleConnections()
}

// A question that nobody waits for is not asked while others are.
func TestQuestionsWaitForTheirTurn(t *testing.T) {
	asked, go_on := make(chan struct{}, 8), make(chan struct{})
	_, url := start(t, func(context.Context, explore.Question) ([]json.RawMessage, error) {
		asked <- struct{}{}
		<-go_on
		return nil, nil
	})
	done := make(chan struct{}, 8)
	for range 2 {
		go func() { ask(t, "POST", url+"api/look", request); done <- struct{}{} }()
	}
	<-asked
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"api/look", strings.NewReader(request))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	cancel()
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	close(go_on)
	<-done
	<-done
	require.Empty(t, asked)
}

func TestWhereToListen(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "127.1.2.3:80", "[::1]:0", "localhost:8600", "[::ffff:127.0.0.1]:0"} {
		require.NoError(t, explore.CheckListen(address, false))
	}
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80"} {
		require.ErrorContains(t, explore.CheckListen(address, false), "is no loopback address", address)
		require.NoError(t, explore.CheckListen(address, true))
	}
	require.ErrorContains(t, explore.CheckListen("127.0.0.1", false), "expected an address and a port, such as 127.0.0.1:0")
	require.ErrorContains(t, explore.CheckListen("example.com:0", true), "expected an address of this system, such as 127.0.0.1:0")
}
