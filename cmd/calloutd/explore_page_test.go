package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// page is calloutd explore in a real browser, without a window.
type page struct {
	t       *testing.T
	ctx     context.Context // the tab
	address string

	mu       sync.Mutex
	noise    []string // what the browser complained about
	requests []string
}

// exploring serves policies and opens the page in a tab, with nothing remembered.
func exploring(t *testing.T, tabs context.Context, policies ...string) *page {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "calloutd", append([]string{"explore"}, policies...)...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // The context has killed it.
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	p := &page{t: t, ctx: tab(t, tabs, chromedp.WithNewBrowserContext()), address: strings.TrimSpace(line)}
	p.listen()
	p.emulate("light")
	p.show(p.address)
	return p
}

// tab opens a tab. Now and then a browser on a busy machine starts one that never answers:
// then another one is opened.
func tab(t *testing.T, tabs context.Context, options ...chromedp.ContextOption) context.Context {
	t.Helper()
	for range 3 {
		ctx, end := chromedp.NewContext(tabs, options...)
		opened := make(chan error, 1)
		go func() { opened <- chromedp.Do(ctx) }()
		select {
		case err := <-opened:
			require.NoError(t, err)
			t.Cleanup(end)
			return ctx
		case <-time.After(time.Minute):
			end()
			t.Logf("a tab did not answer: %v", <-opened)
		}
	}
	require.FailNow(t, "the browser opens no tab that answers")
	return nil
}

// listen notes what the tab asks for and what it complains about.
func (p *page) listen() {
	require.NoError(p.t, chromedp.Listen(p.ctx, func(ev any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := ev.(type) {
		case *network.EventRequestWillBeSent:
			p.requests = append(p.requests, e.Request.URL)
		case *runtime.EventConsoleAPICalled:
			p.noise = append(p.noise, fmt.Sprintf("console.%s: %v", e.Type, e.Args))
		case *runtime.EventExceptionThrown:
			p.noise = append(p.noise, fmt.Sprintf("exception: %s %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		case *cdplog.EventEntryAdded:
			p.noise = append(p.noise, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	}))
	_, err := chromedp.Call(p.ctx, cdplog.Enable, cdp.Empty{})
	require.NoError(p.t, err)
	_, err = chromedp.Call(p.ctx, network.Enable, network.EnableParams{})
	require.NoError(p.t, err)
}

// permit lets the page do what it else has to ask for.
func (p *page) permit(names ...string) {
	p.t.Helper()
	for _, name := range names {
		_, err := chromedp.CallBrowser(p.ctx, browser.SetPermission, browser.SetPermissionParams{Permission: &browser.PermissionDescriptor{Name: name},
			Setting: browser.PermissionSettingGranted, BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID})
		require.NoError(p.t, err)
	}
}

// another is a new tab that shows an address.
func (p *page) another(address string) *page {
	q := &page{t: p.t, ctx: tab(p.t, p.ctx), address: p.address}
	q.listen()
	q.show(address)
	return q
}

func (p *page) show(address string) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.Navigate(address)))
	p.until(`document.querySelectorAll(".station").length > 0`)
}

// emulate makes the system prefer light or dark.
func (p *page) emulate(scheme string) {
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	require.NoError(p.t, err)
}

// until waits for an expression to be true.
func (p *page) until(expression string) {
	p.t.Helper()
	_, err := chromedp.Run(p.ctx, chromedp.Poll[any](expression, chromedp.WithPollingTimeout(2*time.Minute), chromedp.WithPollingInterval(20*time.Millisecond)))
	require.NoError(p.t, err, "%s\n%s", expression, p.text("#outcome"))
}

func (p *page) press(keys ...string) {
	p.t.Helper()
	for _, k := range keys {
		require.NoError(p.t, chromedp.Do(p.ctx, chromedp.KeyEvent(k)))
	}
}

// focus moves with the tabulator until an element has the focus, and notes which
// were on the way.
func (p *page) focus(id string) (way []string) {
	p.t.Helper()
	for range 40 {
		p.press(kb.Tab)
		way = append(way, run[string](p, `document.activeElement.id || document.activeElement.tagName`))
		if way[len(way)-1] == id {
			return way
		}
	}
	require.Fail(p.t, "the tabulator does not lead to "+id, "%v", way)
	return nil
}

// write replaces what the focused field has.
func (p *page) write(text string) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.KeyEvent("a", chromedp.KeyModifiers(chromedp.ModifierCtrl))))
	p.press(kb.Backspace)
	p.press(strings.Split(text, "")...)
}

func run[T any](p *page, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	require.NoError(p.t, err, expression)
	return v
}

func (p *page) text(selector string) string {
	p.t.Helper()
	return strings.Join(strings.Fields(run[string](p, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector))), " ")
}

// quiet checks that the browser found nothing wrong, and that nobody else was asked.
func (p *page) quiet() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(p.t, p.noise)
	require.NotEmpty(p.t, p.requests)
	for _, url := range p.requests {
		require.True(p.t, strings.HasPrefix(url, p.address), url)
	}
}

var stepOf = regexp.MustCompile(`^Step (\d+) of (\d+)$`)

// step is where the page is, and of how many.
func (p *page) step() (at, all string) {
	p.t.Helper()
	m := stepOf.FindStringSubmatch(p.text("#count"))
	require.NotNil(p.t, m)
	return m[1], m[2]
}

// forwardTo presses the right arrow until the detail has a text.
func (p *page) forwardTo(text string) {
	p.t.Helper()
	for {
		if strings.Contains(p.text("#detail"), text) {
			return
		}
		at, all := p.step()
		require.NotEqual(p.t, all, at, "no step says %s", text)
		p.press(kb.ArrowRight)
	}
}

// named checks that whoever hears the page knows what everything is.
func (p *page) named() {
	p.t.Helper()
	tree, err := chromedp.Call(p.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	require.NoError(p.t, err)
	named := 0
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		switch role := string(n.Role.Value); strings.Trim(role, `"`) {
		case "button", "textbox", "combobox", "checkbox", "slider", "link", "meter", "navigation", "form":
			require.NotEqual(p.t, `""`, string(n.Name.Value), "%+v", n)
			named++
		}
	}
	require.Greater(p.t, named, 20)
}
