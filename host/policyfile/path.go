package policyfile

import (
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v4"
)

// path reads a text. What is compared is the whole path of a program, so a
// value that is no path would never match, nor would a name as no proxy gives it.
func (t valueType) path(n *yaml.Node, match string) (operand, *valueError) {
	var err *valueError
	switch end := strings.HasSuffix(match, "prefix"); {
	case !isText(n):
		err = &valueError{want: t.what}
	case t.host:
		if err = t.name(n.Value); err == nil && end && withinWord(n.Value) {
			err = &valueError{want: "the end of names such as .example.com, since not" + n.Value + " ends with this one too; the name itself is one more condition", nearest: "." + n.Value}
		}
	case !strings.Contains(t.sample, "/"):
	case end && strings.HasSuffix(n.Value, "/"):
		err = &valueError{want: "the end of a path such as /curl, since " + match + " tests the end"}
	case end && withinWord(n.Value):
		err = &valueError{want: "the end of a path such as /curl, since /not" + n.Value + " ends with this one too", nearest: "/" + n.Value}
	case !end && match != "equal": // Who writes it says that the program is called so.
		err = t.program(n.Value)
	}
	if err != nil {
		return operand{}, err
	}
	return t.one(n.Value), nil
}

// withinWord says that the end of a value which begins so may begin within a word of it.
func withinWord(s string) bool {
	c := s[0] // A text is not empty.
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// name checks what an address is called.
func (t valueType) name(s string) *valueError {
	host := strings.ToLower(strings.TrimSuffix(s, "."))
	_, address := netip.ParseAddr(s)
	switch {
	case strings.Contains(s, "*"):
		return &valueError{want: t.what + ", or for all names that end so match: prefix and such as .example.com"}
	case address == nil:
		return &valueError{want: t.what + "; addresses are IP_REMOTE_ADDRESS"}
	case strings.ContainsAny(s, "/:"):
		return &valueError{want: t.what + ", without scheme, port and path"}
	case strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "":
		return &valueError{want: t.what + " of letters, digits, dots and dashes, in the form of the DNS (xn--...) where it has others"}
	case host != s:
		return &valueError{want: t.what + " in lower case, without a dot at its end", nearest: host}
	}
	return nil
}

// program checks the whole path of one.
func (t valueType) program(s string) *valueError {
	const taken = "; match: equal takes it as it is"
	unix := strings.HasPrefix(s, "/")
	switch {
	case !strings.ContainsAny(s, `/\`):
		return &valueError{want: t.what + ", or match: prefix for the end of it"}
	case strings.Contains(s, "*"):
		return &valueError{want: t.what + ", or match: prefix for the end of it, since WFP has no wildcards" + taken}
	case strings.HasSuffix(s, "/"), !unix && strings.HasSuffix(s, `\`):
		return &valueError{want: t.what + ", and not a folder"}
	case !unix && strings.Contains(s, `\`) && s != strings.ToLower(s): // BFE-CND-08
		return &valueError{want: "the path of a program in lower case, as Windows has it" + taken, nearest: strings.ToLower(s)}
	case !unix && !strings.Contains(s, `\`):
		return &valueError{want: "the whole path of a program such as /usr/bin/curl" + taken}
	}
	return nil
}
