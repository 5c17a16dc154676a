# The decision for OPA. The record is the host's to make: Rego has no bytes.
package callout

default redirect := false

redirect if {
	input.protocol == 6
	input.port == 443
	startswith(input.app, "/usr/bin/")
	not listed
}

listed if {
	some network in data.networks
	net.cidr_contains(network, input.remote)
}
