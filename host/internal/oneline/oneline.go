// Package oneline keeps text of others on its line: a program may be called, and a
// module or a proxy may answer, what would move the cursor or forge a line.
package oneline

import (
	"strconv"
	"strings"
	"unicode"
)

// Clean puts U+FFFD in the place of each character that cannot be printed.
func Clean(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, s)
}

// Quote is s, in quotes if a character of it cannot be printed: nothing of it is lost.
func Quote(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.Quote(s)
	}
	return s
}
