package boltstore_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// children are the programs that this binary is when a test starts it again.
var children = map[string]func(){}

const childVar = "BOLTSTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv(childVar)]; ok {
		child()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
