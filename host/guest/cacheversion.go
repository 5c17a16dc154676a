package guest

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/tetratelabs/wazero"
)

const versionPrefix = "wazero@"

// cacheVersion names the folder of a cache for what this version of wazero compiles for this
// system; empty if it may keep nothing. wazero tells versions apart by the program's build info.
// Where that does not say one, as in the tests of a library, it would run what another version
// has made.
func cacheVersion() string {
	var version, sum string
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/tetratelabs/wazero" {
			version, sum = m.Version, m.Sum
			if m.Replace != nil {
				sum = m.Replace.Path + m.Replace.Version + m.Replace.Sum
			}
		}
	}
	if version == "" {
		f := runtime.FuncForPC(reflect.ValueOf(wazero.NewRuntime).Pointer())
		source, _ := f.FileLine(f.Entry())
		if version = versionOfSource(source); version == "" {
			return ""
		}
		sum = info.Main.Version // wazero takes that for its own.
	}
	of := sha256.Sum256(fmt.Appendf(nil, "%q", []string{sum, runtime.GOOS, runtime.GOARCH}))
	return fmt.Sprintf("%s%s-%x", versionPrefix, version, of[:4])
}

// versionOfSource is the version in the path of a source file of wazero, where Go has put it.
func versionOfSource(source string) string {
	_, after, _ := strings.Cut(filepath.ToSlash(source), "/wazero@")
	version, _, versioned := strings.Cut(after, "/")
	if !versioned {
		return ""
	}
	return version
}
