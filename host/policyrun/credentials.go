package policyrun

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// handedTo is a proxy of somebody else, with what it is to be shown. Errors say
// nothing of what the credentials are.
func handedTo(p policyfile.Proxy, dir string) (*handoff.Proxy, error) {
	h := &handoff.Proxy{Kind: handoff.Kind(p.Kind)}
	secret, where := "", ""
	switch c := p.Credentials; {
	case c.File != "":
		b, err := wholefile.Read(policyfile.Under(dir, c.File))
		if err != nil {
			return nil, err
		}
		secret, _, _ = strings.Cut(strings.TrimPrefix(string(b), "\ufeff"), "\n") // an editor's byte order mark
		secret, where = strings.TrimSuffix(secret, "\r"), "the first line of "+c.File
	case c.Env != "":
		var ok bool
		if secret, ok = os.LookupEnv(c.Env); !ok {
			return nil, errors.New("the environment variable " + c.Env + " is not set")
		}
		where = "the environment variable " + c.Env
	default:
		return h, nil
	}
	var colon bool
	if h.User, h.Password, colon = strings.Cut(secret, ":"); !colon || h.User == "" {
		return nil, fmt.Errorf("%s is not user:password", where)
	}
	return h, nil
}
