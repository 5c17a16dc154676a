package explore

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// contentPolicy is the Content-Security-Policy: nothing but what this server has, no
// script or style within the page, and no text that becomes markup.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard lets only requests through that a page of this server can have made, or
// somebody who typed the address.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // The address has the token.
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if why := foreign(r); why != "" {
			http.Error(w, why, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// foreign says why a request comes from elsewhere, empty if it does not. A name
// that somebody else's DNS points at this host (DNS rebinding) makes a page of
// theirs one of this origin: so no name is taken.
func foreign(r *http.Request) string {
	if !byAddress(r.Host) {
		return fmt.Sprintf("this page is reached by the address that calloutd printed, not as %q: a name could be anybody's (DNS rebinding)", r.Host)
	}
	if o := r.Header.Get("Origin"); o != "" && o != "http://"+r.Host {
		return fmt.Sprintf("the request comes from a page of %q", o)
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case site == "" || site == "same-origin" || site == "none":
	case r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate": // A link that was shared: it has the token.
	default:
		return "the request comes from a page of another site"
	}
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "application/json" {
		return "expected application/json, which other sites cannot send"
	}
	return ""
}

// byAddress reports whether a Host header is an IP address or localhost, which no
// DNS server is asked about.
func byAddress(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}

// CheckListen says why an address to listen on is refused: others can reach it and
// nobody said that they may.
func CheckListen(address string, remote bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q: expected an address and a port, such as 127.0.0.1:0: %w", address, err)
	}
	if strings.EqualFold(host, "localhost") {
		return nil
	}
	a, err := netip.ParseAddr(host)
	switch {
	case host != "" && err != nil:
		return fmt.Errorf("%q: expected an address of this system, such as 127.0.0.1:0: %w", address, err)
	case remote || host != "" && a.Unmap().IsLoopback():
		return nil
	}
	return fmt.Errorf("%q is no loopback address: whoever reaches it and learns the token reads the policies; give --allow-remote if that is meant", address)
}
