package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// TestExplore shows the page of calloutd explore to one browser.
func TestExplore(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "chromium is missing in CI")
		t.Skip("chromium is not installed")
	}
	warm(t)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox,
		chromedp.WSURLReadTimeout(5*time.Minute))...)
	defer stop()
	tabs, end := chromedp.NewContext(allocator)
	defer end()
	require.NoError(t, chromedp.Do(tabs)) // It starts.
	for name, test := range map[string]func(*testing.T, context.Context){
		"by keyboard": testExploreByKeyboard, "mistakes stand beside their fields": testExploreMistakes, "links show the same": testExploreLinks,
		"follows the policy": testExploreFollows, "legible in light and dark, on screens and phones": testExploreLegible, "themes": testExploreThemes,
	} {
		t.Run(name, func(t *testing.T) { test(t, tabs) })
	}
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
	ctx, end := chromedp.NewContext(tabs, chromedp.WithNewBrowserContext())
	t.Cleanup(end)
	p := &page{t: t, ctx: ctx, address: strings.TrimSpace(line)}
	p.listen()
	p.emulate("light")
	p.show(p.address)
	return p
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
	ctx, end := chromedp.NewContext(p.ctx)
	p.t.Cleanup(end)
	q := &page{t: p.t, ctx: ctx, address: p.address}
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

// The whole way of a redirected connection, with the keyboard alone.
func testExploreByKeyboard(t *testing.T, tabs context.Context) {
	p := exploring(t, tabs, quickstart, forward)
	require.Contains(t, p.text("#outcome"), "Redirected to proxy inspect (127.0.0.1:61001).", "what is shown at first is worth a look")

	// The order is that of reading, the focus is always seen, everything has a name.
	way := p.focus("slider")
	require.Equal(t, []string{"skip", "policy", "share", "theme", "to", "from", "protocol", "inbound", "program", "user", "pid", "groups", "host_name", "peer_name"}, way[:14])
	for range way {
		p.press(kb.Tab)
		require.True(t, run[bool](p, `document.activeElement === document.body || (s => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2)(getComputedStyle(document.activeElement))`),
			"the focus on %s is not seen", run[string](p, `document.activeElement.outerHTML`))
	}
	p.named()
	p.show(p.address)

	// The skip link, then another policy and another destination.
	p.focus("skip")
	p.press(kb.Enter)
	require.Equal(t, "journey", run[string](p, `document.activeElement.id`))
	p.show(p.address)
	p.focus("policy")
	p.press(kb.ArrowDown)
	p.until(`document.querySelector("#policy").value.endsWith("forward/policy.yaml") && document.querySelector("#outcome").innerText.startsWith("Permitted")`)
	p.focus("to")
	p.write("127.0.0.1:8500")
	p.until(`document.querySelector("#outcome").innerText.includes("carries it on to 127.0.0.1:8500")`)
	require.Equal(t, "Redirected to proxy forward (127.0.0.1:61001), which carries it on to 127.0.0.1:8500.", p.text("#outcome"))

	// Step by step: the buttons, then the keys.
	p.focus("next")
	p.press(kb.Enter, " ")
	at, all := p.step()
	require.Equal(t, "3", at)
	require.Equal(t, "18", all)
	require.Equal(t, "connect redirect", p.text(`.station[aria-current="step"] .name`))
	require.Regexp(t, `^Step 3 of 18: ALE_CONNECT_REDIRECT_V4, filter 1 local web to the proxy, callout proxy-redirect: redirect to 127.0.0.1:61001 \(proxy forward\)`, p.text("#said"), "who does not see it hears it")
	for _, want := range []string{"Sublayer proxying weight 0x9000", "✓ holds: IP_REMOTE_PORT is in 8000-8999", "is told not-redirected", "answers redirect to 127.0.0.1:61001 (proxy forward)", "of 16,777,216 units of fuel",
		"leaves the record 132 bytes", "leaves the context 127.0.0.1:8500 256 bytes", "The redirect is carried out: 127.0.0.1:8500 → 127.0.0.1:61001 (proxy forward)."} {
		require.Contains(t, p.text("#detail"), want)
	}
	p.forwardTo("Which redirects brought it here?")
	require.Contains(t, p.text("#detail"), "STATUS_SUCCESS 104 bytes")
	require.Contains(t, p.text("#detail .record"), "callout proxy-redirect filter 1 “local web to the proxy” program /usr/bin/curl [1000] wanted 127.0.0.1:8500 went to 127.0.0.1:61001")
	p.forwardTo("Whom was it for?")
	require.Contains(t, p.text("#detail"), "the context 127.0.0.1:8500 256 bytes")
	p.forwardTo("The records go on")
	p.forwardTo("is told redirected-by-self it comes from the proxy that this callout redirected it to")
	require.Contains(t, p.text("#detail"), "answers permit “the proxy's own connection”")
	p.press(kb.End)
	at, _ = p.step()
	require.Equal(t, "18", at)
	require.Contains(t, p.text("#detail"), "The connection goes to 127.0.0.1:8500.")
	p.press(kb.ArrowRight) // There is no further.
	p.press(kb.ArrowLeft)
	at, _ = p.step()
	require.Equal(t, "17", at)
	p.press(kb.Home)
	at, _ = p.step()
	require.Equal(t, "1", at)
	p.quiet()
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

func testExploreMistakes(t *testing.T, tabs context.Context) {
	p := exploring(t, tabs, quickstart)
	p.focus("to")
	p.write("198.51.100.700:80")
	p.until(`document.querySelector("#to-error").innerText.includes("each part")`) // There are other mistakes while one writes.
	require.Equal(t, "true", run[string](p, `document.querySelector("#to").getAttribute("aria-invalid")`))
	require.Equal(t, "198.51.100.700:80 each part of an IPv4 address is a number from 0 to 255", p.text("#to-error"))
	require.Equal(t, "700", p.text("#to-error mark"))
	require.Equal(t, "There is a mistake. Below is the connection before.", p.text("#outcome"))
	p.focus("inbound")
	p.press(" ")
	p.until(`document.querySelector("#from-error").innerText.includes("an inbound connection comes from somewhere")`)
	require.Equal(t, "There are 2 mistakes. Below is the connection before.", p.text("#outcome"))
	p.legible("with mistakes")
	p.show(strings.Split(run[string](p, "location.href"), "#")[0] + "#to=192.0.2.1:22&from=203.0.113.9:40000&protocol=tcp&inbound=true&policy=" + quickstart)
	p.until(`document.querySelector("#outcome").innerText === "Accepted at 192.0.2.1:22 from 203.0.113.9:40000."`)
	require.Equal(t, "false", run[string](p, `document.querySelector("#to").getAttribute("aria-invalid")`))

	// A link that names a policy of somewhere else.
	p.show(p.address + "#to=192.0.2.1:22&protocol=tcp&policy=elsewhere.yaml")
	p.until(`document.querySelector("#problems").innerText.includes("policy: this is no policy that is explored here")`)
	p.quiet()
}

// What is shown stands in the address.
func testExploreLinks(t *testing.T, tabs context.Context) {
	p := exploring(t, tabs, quickstart, forward)
	p.show(p.address + "#policy=" + forward + "&to=127.0.0.1:8500&protocol=tcp&program=/opt/a%20b%26c%3Dd&user=7&pid=8&groups=1,2&host_name=a.example&peer_name=b.example&step=10")
	p.until(`document.querySelector("#count").innerText === "Step 10 of 18"`)
	p.press(kb.ArrowRight)
	link := run[string](p, "location.href")
	p.permit("clipboard-read", "clipboard-write")
	p.focus("share")
	p.press(kb.Enter)
	p.until(`document.querySelector("#share").innerText !== "Copy link"`)
	require.Equal(t, "The link is copied.", p.text("#said"))
	copied, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`navigator.clipboard.readText()`, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	require.Equal(t, link, copied)
	state := `JSON.stringify([[...document.querySelectorAll("input[name], #policy")].map(x => x.type === "checkbox" ? x.checked : x.value),
		...["#outcome", "#map", "#count"].map(s => document.querySelector(s).innerText)])`
	want := run[string](p, state)
	require.Contains(t, want, "/opt/a b&c=d")
	require.Contains(t, want, "Step 11 of 18")
	q := p.another(link)
	q.until(`document.querySelector("#count").innerText === "Step 11 of 18"`)
	require.Equal(t, want, run[string](q, state))
	require.Equal(t, link, run[string](q, "location.href"))
	p.quiet()
	q.quiet()
}

func testExploreFollows(t *testing.T, tabs context.Context) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(filters string) {
		require.NoError(t, os.WriteFile(file+"~", []byte("version: 1\nfilters:\n"+filters), 0o600))
		require.NoError(t, os.Rename(file+"~", file))
	}
	write("  - {name: nothing, layer: ALE_AUTH_CONNECT, action: permit}\n")
	p := exploring(t, tabs, file)
	p.until(`document.querySelector("#live-text").innerText === "follows the file"`)
	require.Equal(t, "Permitted: it goes to 198.51.100.7:80.", p.text("#outcome"))
	write("  - {name: no web, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 80}]}\n" +
		"  - {name: no mail, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}\n")
	p.until(`document.querySelector("#outcome").innerText.startsWith("Blocked")`)
	require.Equal(t, "Blocked at ALE_AUTH_CONNECT_V4 by filter 1 “no web”.", p.text("#outcome"))
	p.press(kb.Home)
	p.forwardTo("May it go there?")
	require.Contains(t, p.text("#detail"), "not asked no mail filter 3 · weight 0x8200000000 "+file+":4 ✗ does not hold: IP_REMOTE_PORT is 25 (it is 80)")
	write("  - {name: no web, layer: ALE_AUTH_CONECT, action: block}\n")
	p.until(`!document.querySelector("#problems").hidden`)
	require.Contains(t, p.text("#problems"), "This policy cannot be asked "+file+":3:27 layer: expected a layer")
	require.Contains(t, p.text("#problems"), "did you mean “ALE_AUTH_CONNECT”?")
	p.legible("with problems")
	write("  - {name: nothing, layer: ALE_AUTH_CONNECT, action: permit}\n")
	p.until(`document.querySelector("#problems").hidden && document.querySelector("#outcome").innerText.startsWith("Permitted")`)
	p.quiet()
}

// contrasts lists texts that are seen with a contrast under 4.5 (WCAG 1.4.3), by the
// colours that the browser computed.
const contrasts = `(() => {
	const rgba = c => { const x = document.createElement("canvas").getContext("2d", {colorSpace: "srgb"}); x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data]; };
	const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = el => { for (; el; el = el.parentElement) { const c = rgba(getComputedStyle(el).backgroundColor); if (c[3] === 255) return c; if (c[3] > 0) throw new Error("half a background: " + el.className); } return rgba("Canvas"); };
	const bad = []; let seen = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	const check = (el, color, text) => {
		const a = light(rgba(color)), b = light(ground(el));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		seen++;
		if (ratio < 4.5) bad.push(text + " [" + el.tagName + "." + el.className + "] " + ratio.toFixed(2));
	};
	while (walk.nextNode()) {
		const el = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
		if (!text || !el.checkVisibility({opacityProperty: true, visibilityProperty: true}) || el.closest(".unseen, option, datalist, noscript")) continue;
		for (let p = el; p; p = p.parentElement) if (getComputedStyle(p).opacity !== "1") bad.push(text + ": is not opaque");
		check(el, getComputedStyle(el).color, text);
	}
	for (const el of document.querySelectorAll("input, select")) {
		check(el, getComputedStyle(el).color, el.id);
		if (el.placeholder) check(el, getComputedStyle(el, "::placeholder").color, el.placeholder);
	}
	return JSON.stringify({bad, seen, ground: getComputedStyle(document.documentElement).backgroundColor});
})()`

// legible checks the contrast of all text that is seen, in light and in dark, and that
// a phone shows all of it without scrolling aside.
func (p *page) legible(when string) {
	p.t.Helper()
	grounds := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		p.emulate(scheme)
		found := run[string](p, contrasts)
		require.Contains(p.t, found, `{"bad":[],"seen":`, "%s, %s", scheme, when)
		grounds[scheme] = run[string](p, `getComputedStyle(document.documentElement).backgroundColor`)
	}
	require.NotEqual(p.t, grounds["light"], grounds["dark"])
	p.emulate("light")
	for _, width := range []int64{1280, 800, 360} {
		require.NoError(p.t, chromedp.Do(p.ctx, chromedp.EmulateViewport(width, 740)))
		require.LessOrEqual(p.t, run[int64](p, `document.scrollingElement.scrollWidth`), width, "%s, %d wide", when, width)
	}
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.EmulateViewport(1280, 900)))
}

func testExploreLegible(t *testing.T, tabs context.Context) {
	conditions := "../../examples/conditions/policy.yaml"
	p := exploring(t, tabs, forward, conditions)
	for action, link := range map[string]string{"redirect": "#to=127.0.0.1:8500&protocol=tcp&program=/usr/bin/curl&policy=" + forward, "block": "#to=192.0.2.7:25&protocol=tcp&program=/usr/bin/mail&user=1000&policy=" + conditions} {
		p.show(p.address + link)
		p.until(`document.querySelector("#outcome").dataset.action === "` + action + `"`)
		p.press(kb.Home)
		_, all := p.step()
		for at := ""; at != all; at, _ = p.step() {
			p.legible(p.text("#count"))
			p.press(kb.ArrowRight)
		}
		p.legible("at the end")
	}
	p.quiet()
}

// The button is for who wants another than the system's.
func testExploreThemes(t *testing.T, tabs context.Context) {
	p := exploring(t, tabs, quickstart)
	dark := func() bool { return run[bool](p, `getComputedStyle(document.body).color === "rgb(232, 235, 240)"`) }
	require.False(t, dark())
	p.focus("theme")
	for _, want := range []struct {
		label string
		dark  bool
	}{{"Theme: light", false}, {"Theme: dark", true}, {"Theme: system", false}, {"Theme: light", false}, {"Theme: dark", true}} {
		p.press(kb.Enter)
		require.Equal(t, want.label, p.text("#theme"))
		require.Equal(t, want.dark, dark(), want.label)
	}
	p.show(p.address) // It is remembered.
	require.True(t, dark())
	p.quiet()
}
