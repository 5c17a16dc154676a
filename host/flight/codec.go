package flight

import (
	"errors"

	"github.com/calloutd/calloutd/host/redirect"
)

// ErrCorrupt reports bytes that are not of a flight file.
var ErrCorrupt = errors.New("not of a flight file")

// Limits of what is read.
const (
	// MaxMessage bounds one message, in bytes.
	MaxMessage = 4 << 20
	maxEntry   = MaxMessage - 16 // with its tag and its length
	maxHops    = redirect.MaxHops
	maxAnswers = 1 << 16
)

// The messages and fields of README.md.
const (
	partHeader, partEntry = 1, 2

	hdrPolicy, hdrProcess, hdrProxy, hdrSource, hdrMasked = 1, 2, 3, 4, 5
	pxID, pxAddr                                          = 1, 2

	fTime, fProtocol, fInbound, fProgram, fProcess, fUser, fGroup = 1, 2, 3, 4, 5, 6, 7
	fLocal, fRemote, fHost, fHop, fOutcome, fAnswer               = 8, 9, 10, 11, 12, 13

	oAction, oDestination, oLayer, oFilter, oFilterName, oCallout = 1, 2, 3, 4, 5, 6
	oRule, oWhy, oContext, oRecord                                = 7, 8, 9, 10

	aCallout, aCall, aResult, aData = 1, 2, 3, 4
)
