package guest

import (
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
)

// cacheOfVersion is the folder of a cache for what this version of wazero compiles; empty if
// it may keep nothing. wazero tells versions apart by the program's build info. Where that
// does not say one, as in the tests of a library, it would run what another version has made.
func cacheOfVersion(dir string) string {
	if info, ok := debug.ReadBuildInfo(); ok && slices.ContainsFunc(info.Deps, func(m *debug.Module) bool { return m.Path == "github.com/tetratelabs/wazero" }) {
		return dir
	}
	f := runtime.FuncForPC(reflect.ValueOf(wazero.NewRuntime).Pointer())
	source, _ := f.FileLine(f.Entry())
	return cacheBySource(dir, source)
}

// cacheBySource is cacheOfVersion by the path of a source file of wazero, which has the
// version where Go has put it.
func cacheBySource(dir, source string) string {
	_, after, _ := strings.Cut(filepath.ToSlash(source), "/wazero@")
	version, _, versioned := strings.Cut(after, "/")
	if !versioned || dir == "" {
		return ""
	}
	return filepath.Join(dir, "wazero@"+version)
}
