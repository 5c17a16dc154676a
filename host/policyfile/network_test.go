package policyfile

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const listed = `version: 1
sets: [{id: a, file: set.txt}]
tables: [{id: b, file: lists/table.txt}]
callouts: [{id: c, wasm: x, sets: [a], tables: [b]}]
`

// load reads a policy with files beside it.
func load(t *testing.T, policy string, files map[string]string) (*File, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("lists", 0o755))
	for name, text := range files {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
	}
	require.NoError(t, os.WriteFile("policy.yaml", []byte(policy), 0o644))
	return Load("policy.yaml")
}

func TestListsAreFilesBesideThePolicy(t *testing.T) {
	f, err := load(t, listed, map[string]string{
		"set.txt":         "# comment\n\n192.0.2.0/24 # more\r\n\t198.51.100.7\n2001:db8::/32\n192.0.2.0/24",
		"lists/table.txt": "0.0.0.0/0 0\n10.0.0.0/8\t2147483647#comment\n",
	})
	require.NoError(t, err)
	c := f.Callouts[0]
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32"),
		netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.0/24")}, c.Sets[0])
	require.Equal(t, []Row{{netip.MustParsePrefix("0.0.0.0/0"), 0}, {netip.MustParsePrefix("10.0.0.0/8"), 1<<31 - 1}}, c.Tables[0])
}

// The mistakes of the policy come first, then those of its lists, each with the
// line of its own file.
func TestMistakesInListsHaveTheirLines(t *testing.T) {
	_, err := load(t, strings.Replace(listed, "sets: [a]", "sets: [b]", 1), map[string]string{
		"set.txt": "192.0.2.0/33\n" +
			"é 10.0.0.0/8\n" +
			"  192.0.2.7/24 # é\n" +
			"::ffff:192.0.2.0/120\n" +
			"10.0.0.0/8 7\n",
		"lists/table.txt": "10.0.0.0/8\n" +
			"10.0.0.0/8 1 2\n" +
			"10.0.0.0/8 -1\n" +
			"ten 1\n" +
			"10.0.0.1 1\n" +
			"10.0.0.1/32 2\n",
	})
	table := filepath.Join("lists", "table.txt")
	require.EqualError(t, err, strings.Join([]string{
		`policy.yaml:4:36: sets: expected a set of this file (a), found "b"`,
		table + `:1:1: expected a network and a number from 0 to 2147483647 on each line, found 1 words`,
		table + `:2:14: expected a network and a number from 0 to 2147483647 on each line, found 3 words`,
		table + `:3:12: expected a number from 0 to 2147483647, found "-1"`,
		table + `:4:1: expected an address or a network such as 192.0.2.0/24, found "ten"`,
		table + `:6:1: network 10.0.0.1/32 stands twice, first in line 5`,
		`set.txt:1:1: expected an address or a network such as 192.0.2.0/24, found "192.0.2.0/33"`,
		`set.txt:2:3: expected one network a line, found a second word "10.0.0.0/8"`,
		`set.txt:3:3: expected an address or a network such as 192.0.2.0/24, found "192.0.2.7/24" (did you mean "192.0.2.0/24"?)`,
		`set.txt:4:1: expected an address or a network such as 192.0.2.0/24, found "::ffff:192.0.2.0/120" (did you mean "192.0.2.0/24"?)`,
		`set.txt:5:12: expected one network a line, found a second word "7"`,
	}, "\n"))
}

// Windows' editors begin a text with a byte order mark.
func TestListsOfWindows(t *testing.T) {
	f, err := load(t, "\ufeff"+listed, map[string]string{"set.txt": "\ufeff192.0.2.0/24\r\n", "lists/table.txt": "\ufeff10.0.0.0/8 1\r\n"})
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, f.Callouts[0].Sets[0])
	require.Equal(t, []Row{{netip.MustParsePrefix("10.0.0.0/8"), 1}}, f.Callouts[0].Tables[0])
}

func TestListsThatCannotBeRead(t *testing.T) {
	_, err := load(t, listed, map[string]string{"lists/table.txt": "10.0.0.0/8 1\n\xff"})
	require.ErrorContains(t, err, "policy.yaml:2:22: file: open set.txt: ")
	require.ErrorContains(t, err, filepath.Join("lists", "table.txt")+":2:1: byte 0xff: expected UTF-8 text")

	set, err := os.Create("set.txt")
	require.NoError(t, err)
	require.NoError(t, set.Truncate(1<<40)) // A file without end, and without blocks.
	require.NoError(t, set.Close())
	_, err = Load("policy.yaml")
	require.ErrorContains(t, err, "policy.yaml:2:22: file: set.txt is larger than "+strconv.Itoa(MaxListSize)+" bytes")

	_, err = load(t, listed, map[string]string{"set.txt": strings.Repeat("x\n", 1000), "lists/table.txt": ""})
	var es Errors
	require.ErrorAs(t, err, &es)
	require.Len(t, es, MaxProblems+1)
	require.Equal(t, "there are more mistakes than are listed", es[MaxProblems].Message)
}

// Whatever a list holds, every mistake has a place in it, and what is taken is a
// network that the host can ask for.
func FuzzLists(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24 1\n# x\n", "10.0.0.1\n", "::/0 0\r\n::1 2147483648", "fe80::1%eth0 1", "::ffff:10.0.0.1 7", "10.0.0.0/8 1\n10.0.0.0/8 1", "é\u00a0é"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		for _, policy := range []string{
			"version: 1\nsets: [{id: a, file: list.txt}]\ncallouts: [{id: c, wasm: x, sets: [a]}]",
			"version: 1\ntables: [{id: a, file: list.txt}]\ncallouts: [{id: c, wasm: x, tables: [a]}]",
		} {
			file, err := read("policy.yaml", []byte(policy), func(string) ([]byte, error) { return bytes.Clone(list), nil })
			if err != nil {
				var es Errors
				require.True(t, errors.As(err, &es), "%v", err)
				for _, p := range es {
					require.Equal(t, "list.txt", p.File)
					inside(t, list, p)
				}
				continue
			}
			c := file.Callouts[0]
			for _, set := range c.Sets {
				for _, p := range set {
					require.Equal(t, p.Masked(), p)
					require.Equal(t, p.Addr().Unmap(), p.Addr())
				}
			}
			for _, table := range c.Tables {
				seen := map[netip.Prefix]bool{}
				for _, row := range table {
					require.GreaterOrEqual(t, row.Value, int32(0))
					require.False(t, seen[row.Prefix])
					seen[row.Prefix] = true
				}
			}
		}
	})
}
