package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/jscover"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/sdk"
	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// A script is put into its engine unread, so the engine is asked whether it is one.
// What else a script does wrong depends on its configuration: check finds it.

var (
	noScript   = regexp.MustCompile(`(?s)(SyntaxError: .*?)\s+at policy\.js:(\d+)$`)
	noClassify = regexp.MustCompile(`the script (defines no function classify)$`)
)

// readable returns a project.BuildError if the project in a folder is a script that its
// engine cannot read.
func readable(ctx context.Context, dir string) error {
	l, err := project.Of(dir)
	if err != nil || l.Name != "js" {
		return nil // Building says what is wrong.
	}
	file := filepath.Join(dir, l.Main)
	src, err := wholefile.Read(file)
	if err != nil {
		return nil
	}
	why, err := engineOn(ctx, src)
	if err != nil || why == nil {
		return err
	}
	if m := noScript.FindStringSubmatch(why.Error()); m != nil {
		return &project.BuildError{Command: file + ":" + m[2] + column(src, m[2]), Err: errors.New(m[1])}
	}
	if m := noClassify.FindStringSubmatch(why.Error()); m != nil {
		return &project.BuildError{Command: file, Err: errors.New("it " + m[1])}
	}
	return nil
}

// engineOn returns what the engine says of a script that is its configuration: so it is
// the same module for all scripts, and compiled once.
func engineOn(ctx context.Context, script []byte) (why, err error) {
	engine, err := sdk.Files.ReadFile("js/engine.wasm")
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]string{"script": string(script)})
	if err != nil {
		return nil, err
	}
	r, err := guest.Inspect(ctx, engine, config, guest.Options{CacheDir: cacheDir(), CacheDirSize: cacheSize(), CompileApart: true})
	if err != nil {
		return nil, err
	}
	return r.Refused, nil
}

// column is where in a line the script ends to be one, which the engine does not tell;
// empty if the parser of coverage does not find it in that line.
func column(src []byte, line string) string {
	l, c := jscover.Mistake(string(src))
	if strconv.Itoa(l) != line {
		return ""
	}
	return fmt.Sprintf(":%d", c)
}
