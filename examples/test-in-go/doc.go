// Package testingo is a policy whose tests are Go tests.
package testingo
