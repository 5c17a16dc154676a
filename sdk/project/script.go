package project

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"

	"github.com/calloutd/calloutd/sdk"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// scriptMark stands in the engine of ../js before where a script goes, its
// capacity and its length.
const scriptMark = "callout-script-1"

// Sections of a module that change.
const (
	secData      = 11
	secDataCount = 12
)

// WithScript puts a script into the engine: a data segment writes it to where the
// engine looks for it. There is nothing to compile.
func WithScript(engine, script []byte) ([]byte, error) {
	if n := bytes.Count(engine, []byte(scriptMark)); n != 1 {
		return nil, fmt.Errorf("the engine has %d places for a script, expected one", n)
	}
	at := bytes.Index(engine, []byte(scriptMark)) + len(scriptMark)
	where, capacity := binary.LittleEndian.Uint32(engine[at:]), binary.LittleEndian.Uint32(engine[at+4:])
	if len(script) == 0 {
		return nil, fmt.Errorf("the script is empty")
	}
	if uint64(len(script)) > uint64(capacity) {
		return nil, fmt.Errorf("the script is %d bytes, the limit is %d", len(script), capacity)
	}
	engine = bytes.Clone(engine)
	binary.LittleEndian.PutUint32(engine[at+8:], uint32(len(script)))
	segment := append([]byte{0, 0x41}, sleb(int32(where))...) // active, i32.const
	segment = append(append(segment, 0x0b), uleb(uint32(len(script)))...)
	return withSegment(engine, append(segment, script...))
}

// ScriptOf returns the script that WithScript put into a module, a part of it. The
// engine has none as it is: its script is configuration. Other modules are no engine.
func ScriptOf(module []byte) (script []byte, engine bool) {
	at := bytes.Index(module, []byte(scriptMark))
	if at < 0 || len(module)-at < len(scriptMark)+12 {
		return nil, false
	}
	size := binary.LittleEndian.Uint32(module[at+len(scriptMark)+8:])
	err := sections(module, func(id byte, content []byte) {
		if id == secData && size > 0 && uint64(size) <= uint64(len(content)) {
			script = content[len(content)-int(size):] // It is the end of the last segment.
		}
	})
	return script, err == nil
}

// withSegment appends one to the data of a module, of which it goes over the
// sections only.
func withSegment(wasm, segment []byte) ([]byte, error) {
	out := bytes.Clone(wasm[:8])
	err := sections(wasm, func(id byte, content []byte) {
		if id == secData || id == secDataCount {
			count, n := binary.Uvarint(content)
			content = append(uleb(uint32(count)+1), content[n:]...)
			if id == secData {
				content = append(content, segment...)
			}
		}
		out = append(append(append(out, id), uleb(uint32(len(content)))...), content...)
	})
	return out, err
}

// sections goes over those of a module.
func sections(wasm []byte, do func(id byte, content []byte)) error {
	for at := 8; at < len(wasm); {
		size, n := binary.Uvarint(wasm[at+1:])
		begin := at + 1 + n
		if n <= 0 || size > uint64(len(wasm)-begin) {
			return fmt.Errorf("byte %d of the engine: the section goes past the end", at)
		}
		do(wasm[at], wasm[begin:begin+int(size)])
		at = begin + int(size)
	}
	return nil
}

func uleb(v uint32) []byte { return binary.AppendUvarint(nil, uint64(v)) }

func sleb(v int32) (b []byte) {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

// scripted makes the module of a project in JavaScript.
func scripted(dir, main string) ([]byte, error) {
	engine, err := sdk.Files.ReadFile("js/engine.wasm")
	if err != nil {
		return nil, err
	}
	script, err := wholefile.Read(filepath.Join(dir, main))
	if err != nil {
		return nil, err
	}
	wasm, err := WithScript(engine, script)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, main), err)
	}
	return wasm, nil
}
