package guest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
)

// Whoever closes the runtime first has closed its modules too: their memory is not there any
// more, and a decision would end the process.
func TestARuntimeIsClosedBeforeItsModules(t *testing.T) {
	good := wasm(t, "good")
	rt, err := guest.NewRuntime(t.Context(), guest.Options{CacheDir: cache})
	require.NoError(t, err)
	m, err := rt.Load(t.Context(), "good", good, guest.ModuleOptions{})
	require.NoError(t, err)
	closed, err := rt.Load(t.Context(), "good", good, guest.ModuleOptions{})
	require.NoError(t, err)
	require.NoError(t, closed.Close(t.Context()))
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() {
			for end := time.Now().Add(time.Minute); time.Now().Before(end); {
				if _, err := ask(m, call(80)); err != nil {
					return
				}
			}
			t.Error("it is asked without end")
		})
	}
	loaded := make(chan *guest.Module, 1)
	go func() { // It is loaded, and closed with the others, or not.
		m, _ := rt.Load(context.Background(), "good", good, guest.ModuleOptions{})
		loaded <- m
	}()
	require.NoError(t, rt.Close(t.Context()))
	asking.Wait()
	for _, m := range []*guest.Module{m, closed, <-loaded} {
		if m == nil {
			continue
		}
		_, err = ask(m, call(80))
		require.ErrorIs(t, err, guest.ErrClosed)
		require.ErrorIs(t, m.Reload(t.Context(), good, nil), guest.ErrClosed)
		require.NoError(t, m.Close(t.Context()))
		m.Stats()
	}
	_, err = rt.Load(t.Context(), "good", good, guest.ModuleOptions{})
	require.EqualError(t, err, `callout module "good": the runtime is closed`)
	require.NoError(t, rt.Close(t.Context()))
}

// Who asks about nothing has an error, and those after him an answer.
func TestACallAboutNothing(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{})
	for _, c := range []*fwps.Call{nil, {}} {
		_, err := ask(m, c)
		require.ErrorContains(t, err, "without In")
	}
	_, err := ask(m, call(80))
	require.NoError(t, err)
}
