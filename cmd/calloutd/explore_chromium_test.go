package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

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
		"by keyboard": testExploreByKeyboard, "mistakes stand beside their fields": testExploreMistakes, "links show the same": testExploreLinks, "cases": testExploreCases,
		"follows the policy": testExploreFollows, "legible in light and dark, on screens and phones": testExploreLegible, "themes": testExploreThemes,
	} {
		t.Run(name, func(t *testing.T) {
			tabs, end := context.WithTimeout(tabs, 10*time.Minute) // A browser may stop to answer.
			defer end()
			test(t, tabs)
		})
	}
}

// The whole way of a redirected connection, with the keyboard alone.
func testExploreByKeyboard(t *testing.T, tabs context.Context) {
	p := exploring(t, tabs, quickstart, forward)
	require.Contains(t, p.text("#outcome"), "Redirected to proxy inspect (127.0.0.1:61001).", "what is shown at first is worth a look")

	// The order is that of reading, the focus is always seen, everything has a name.
	way := p.focus("slider")
	require.Equal(t, []string{"skip", "policy", "share", "theme", "case", "to", "from", "protocol", "inbound", "program", "user", "pid", "groups", "host_name", "peer_name"}, way[:15])
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

// What the policy's author thought of can be chosen, and is what is shown.
func testExploreCases(t *testing.T, tabs context.Context) {
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(policy, []byte("version: 1\nfilters:\n- {name: no mail, layer: ALE_AUTH_CONNECT, action: block, conditions: [{field: IP_REMOTE_PORT, value: 25}]}\n"), 0o600))
	cases := func(text string) {
		require.NoError(t, os.WriteFile(casesBeside(policy), []byte("version: 1\ncases:\n"+text), 0o600))
	}
	cases("- {name: web, to: 192.0.2.7:80, user: 7, expect: {action: permit}}\n- {name: mail, to: 192.0.2.7:25, expect: {action: block}}\n" +
		"- {name: in, inbound: true, to: 192.0.2.1:22, from: 203.0.113.9:40000, expect: {action: permit}}\n- {name: mail again, to: 192.0.2.7:25, expect: {action: block}}\n")
	p := exploring(t, tabs, policy, quickstart)
	chosen := `document.querySelector("#case").selectedOptions[0].innerText`
	require.Equal(t, "mail (block)", run[string](p, chosen), "it begins with what is no permit")
	p.until(`document.querySelector("#live-text").innerText === "follows the file"`)

	p.focus("case")
	p.press(kb.ArrowUp)
	p.until(`document.querySelector("#outcome").innerText === "Permitted: it goes to 192.0.2.7:80."`)
	require.Equal(t, "web (permit)", run[string](p, chosen))
	require.Equal(t, "7", run[string](p, `document.querySelector("#user").value`))
	p.press(kb.ArrowDown, kb.ArrowDown)
	p.until(`document.querySelector("#outcome").innerText === "Accepted at 192.0.2.1:22 from 203.0.113.9:40000."`)
	p.press(kb.ArrowDown)
	p.until(`document.querySelector("#outcome").innerText.startsWith("Blocked")`)
	require.Equal(t, "mail again (block)", run[string](p, chosen), "two cases with one connection")
	p.legible("with a case")

	// A connection that is edited is that of a case, or of none.
	p.focus("to")
	p.write("192.0.2.7:26")
	p.until(chosen + ` === "none of the policy's"`)
	p.until(`document.querySelector("#outcome").innerText === "Permitted: it goes to 192.0.2.7:26."`)
	p.write("192.0.2.7:25")
	p.until(chosen + ` === "mail (block)"`)

	// The list is that of the policy, and of its file as it is.
	cases("- {name: other mail, to: 192.0.2.7:25, expect: {action: block}}\n")
	p.until(chosen + ` === "other mail (block)"`)
	p.show(p.address + "#policy=" + quickstart + "&to=192.0.2.7:25&protocol=tcp")
	p.until(chosen + ` === "none of the policy's" && document.querySelectorAll("#case option").length > 2`)
	require.NoError(t, os.Remove(casesBeside(policy)))
	p.show(p.address + "#policy=" + policy + "&to=192.0.2.7:25&protocol=tcp")
	p.until(`document.querySelector("#cases").hidden`)
	p.quiet()
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
