package conformance

import (
	"context"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// classify LAYER LOCAL [-> REMOTE] [key=value...]: one layer, asked directly.
func (w *world) classify(a *args) error {
	name, err := a.next("a layer")
	if err != nil {
		return err
	}
	in := fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/bin/app", OriginalAppID: "/bin/app", ProcessID: 100}
	if in.Layer, err = readLayer(a.l, name); err != nil {
		return err
	}
	if in.Local, err = address(a); err != nil {
		return err
	}
	if len(a.rest) > 0 && a.rest[0] == "->" {
		a.rest = a.rest[1:]
		if in.Remote, err = address(a); err != nil {
			return err
		}
	}
	for _, word := range a.rest {
		if err := w.field(a.l, &in, word); err != nil {
			return err
		}
	}
	a.rest = nil
	traced{w, w.classifier}.Classify(context.Background(), &in, new(fwps.Decision))
	return nil
}

func (w *world) field(l line, in *fwps.Incoming, word string) error {
	k, v, _ := strings.Cut(word, "=")
	switch k {
	case "proto":
		in.Protocol = protocols[v]
	case "app":
		in.AppID = v
	case "original-app":
		in.OriginalAppID = v
	case "uid":
		in.UserID, in.UserKnown = number(v, 0), true
	case "gid":
		in.Groups = append(in.Groups, number(v, 0))
	case "inbound":
		in.Inbound = true
	case "compartment":
		in.CompartmentID = number(v, 0)
	case "flags":
		x, err := readValue(l, fwp.Uint32, v)
		if err != nil {
			return err
		}
		in.Flags = fwp.ConditionFlags(x.Uint)
	case "reason":
		in.ReauthorizeReason = fwp.ReauthorizeReason(number(v, 0))
	default:
		c, ok := fwpm.ParseCondition(k)
		if !ok {
			return l.errorf("field %q is unknown", k)
		}
		x, err := readValue(l, c.DataType(in.Layer), v)
		if err != nil {
			return err
		}
		if in.Other == nil {
			in.Other = map[fwpm.ConditionID]fwp.Value{}
		}
		in.Other[c] = x
	}
	return nil
}
