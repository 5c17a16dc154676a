package main

import (
	"context"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

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
// screens of every width show all of it, beside each other.
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
	for _, width := range []int64{1280, 1265, 1000, 900, 720, 360} {
		require.NoError(p.t, chromedp.Do(p.ctx, chromedp.EmulateViewport(width, 740)))
		require.LessOrEqual(p.t, run[int64](p, `document.scrollingElement.scrollWidth`), width, "%s, %d wide", when, width)
		require.Empty(p.t, run[[]string](p, overlaps), "%s, %d wide", when, width)
		require.Empty(p.t, run[[]string](p, `[...document.querySelectorAll("form input, form select")].filter((e) => e.offsetHeight > 60).map((e) => e.id)`), "fields higher than a line; %s, %d wide", when, width)
	}
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.EmulateViewport(1280, 900)))
}

// overlaps is the names of stations that lie over another one's.
const overlaps = `(() => {
	const names = [...document.querySelectorAll(".station .name")].map((e) => [e.textContent, e.getBoundingClientRect()]);
	return names.filter(([, a], i) => names.some(([, b], j) => i !== j && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).map(([name]) => name);
})()`

func testExploreLegible(t *testing.T, tabs context.Context) {
	conditions := "../../examples/conditions/policy.yaml"
	p := exploring(t, tabs, forward, conditions)
	require.Equal(t, "Redirected to proxy forward (127.0.0.1:61001), which carries it on to 127.0.0.1:8500.", p.text("#outcome"), "it begins with the cases of the first policy")
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
