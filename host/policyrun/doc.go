// Package policyrun makes a policy file decide: the engine with the policy's
// filters, its callouts loaded or built, its proxies started. A Runner keeps one
// policy in force and puts another one in its place while connections go on; a
// policy that Describe opens decides for tests and tools, without a socket.
//
// A Runner's Dialer connects as the policy says, on any system. Its Enforcer is
// what the packages below host/enforce take to decide for other programs.
package policyrun
