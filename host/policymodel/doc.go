// Package policymodel has models of other providers' callouts and filters: what a
// policy meets on a machine that has a VPN client, Windows Firewall or another
// redirector too. A model is a policy file; package policyfile puts it beside another.
package policymodel
