// Package systemd speaks with the service manager: readiness, the watchdog, and
// sockets that it made. Without one nothing of it happens.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the service is up, or has reloaded, and how it is.
func Ready(status string) error { return notify(daemon.SdNotifyReady + "\nSTATUS=" + status) }

// Reloading says that the service begins to reload; Ready ends it.
func Reloading() error {
	return notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic().Microseconds()))
}

// Stopping says that the service ends.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// Alive tells the watchdog.
func Alive() error { return notify(daemon.SdNotifyWatchdog) }

// Watchdog is how often the watchdog wants to hear, 0 if there is none.
func Watchdog() (time.Duration, error) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	return every / 2, nil
}

func notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}

// kinds are what the sockets of a name must be.
var kinds = map[string]string{"remote": "unixpacket", "control": "unix"}

// Listeners are the Unix sockets that the service manager passed (LISTEN_FDS), by
// their names (LISTEN_FDNAMES): "remote" for packets and "control" for a stream. One
// with another name, which units have that set none, is what its type says. Two of
// a kind, or anything else, is an error.
func Listeners() (map[string]*net.UnixListener, error) {
	out := map[string]*net.UnixListener{}
	var errs []error
	for _, f := range activation.Files(true) {
		if err := take(out, f); err != nil {
			errs = append(errs, fmt.Errorf("socket %q of the service manager: %w", f.Name(), err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		for _, l := range out {
			l.Close()
		}
		return nil, err
	}
	return out, nil
}

func take(out map[string]*net.UnixListener, f *os.File) error {
	defer f.Close()
	l, err := net.FileListener(f) // a copy of the descriptor
	if err != nil {
		return err
	}
	network, name := l.Addr().Network(), f.Name()
	if kinds[name] == "" {
		for n, kind := range kinds {
			if kind == network {
				name = n
			}
		}
	}
	switch {
	case kinds[name] != network:
		err = fmt.Errorf("it is %s; remote is unixpacket (ListenSequentialPacket=), control unix (ListenStream=)", network)
	case out[name] != nil:
		err = fmt.Errorf("there is another one for %s", name)
	default:
		out[name] = l.(*net.UnixListener)
		return nil
	}
	return errors.Join(err, l.Close())
}
