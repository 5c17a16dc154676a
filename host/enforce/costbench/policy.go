//go:build linux

package main

import "fmt"

// policies are what calloutd is given. Each permits what it does not redirect by
// a filter, after others that do not match.
var policies = map[string]string{
	"permit.yaml": "version: 1\nfilters:\n" + filters,
	"redirect.yaml": "version: 1\n" + callout(`
        - {destinations: [198.51.100.0/24], ports: ["%END%"], proxy: "127.0.0.1:%END%", proxy_pid: "${pid}"}
        - {destinations: [198.51.100.0/24], ports: ["%DRAIN%"], proxy: "127.0.0.1:%DRAIN%", proxy_pid: "${pid}"}
        - {destinations: [198.51.100.0/24], ports: ["%ECHO%"], proxy: "127.0.0.1:%ECHO%", proxy_pid: "${pid}"}`) + filters,
	"forward.yaml": "version: 1\nproxies: [{id: proxy, kind: forward}]\n" + callout(`
        - {destinations: [127.0.0.0/8], ports: ["%END%", "%DRAIN%", "%ECHO%"], proxy: "${proxy:proxy}", proxy_pid: "${pid}"}`) + filters,
	"socks.yaml": "version: 1\nproxies: [{id: proxy, kind: socks5, address: \"127.0.0.1:%SOCKS%\"}]\n" + callout(`
        - {destinations: [127.0.0.0/8], ports: ["%END%", "%DRAIN%", "%ECHO%"], proxy: "${proxy:proxy}", proxy_pid: "${pid}"}`) + filters,
}

const filters = `  - {name: never, layer: ALE_AUTH_CONNECT, action: block, weight: 9, conditions: [{field: IP_REMOTE_ADDRESS, value: 203.0.113.0/24}]}
  - {name: all else, layer: ALE_AUTH_CONNECT, action: permit, weight: 1}
`

func callout(rules string) string {
	return `callouts:
  - id: redirect
    wasm: %PLUGIN%
    config:
      otherwise: permit
      rules:` + rules + `
filters:
  - {name: to the proxy, layer: ALE_CONNECT_REDIRECT, action: callout, callout: redirect, conditions: [{field: IP_PROTOCOL, value: tcp}]}
`
}

// policy writes a policy for connections to a server.
func (b *bench) policy(name string, to target) (string, error) {
	b.names["END"], b.names["DRAIN"], b.names["ECHO"] = fmt.Sprint(to.end), fmt.Sprint(to.drain), fmt.Sprint(to.echo)
	b.names["PLUGIN"] = b.root + "/plugins/proxy-redirect/proxy-redirect.wasm"
	return b.file(fmt.Sprintf("%d-%s", to.end, name), policies[name])
}
