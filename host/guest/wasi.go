package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

const wasiModule = "wasi_snapshot_preview1"

// Error numbers of WASI.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoFault   = 21
	errnoInval   = 28
	errnoNosys   = 52
)

// What host calls cost. The fuel of the guest does not see the host's time.
const (
	hostCallBudget = 10_000 // calls of one decision, or one step of a start
	maxRandom      = 64 << 10
	maxPrint       = 1024 // bytes of one line
	maxVectors     = 64
	bytesPerCall   = 256 // work on as many bytes counts as one more call
)

// errExit is what proc_exit does: a callout has no process to end.
var errExit = errors.New("the guest called proc_exit")

var errHostCalls = errors.New("too many calls to the host in one decision")

// A wasiFunc gets its parameters in stack. The returned number is the errno.
type wasiFunc func(i *instance, mem api.Memory, stack []uint64) uint32

type wasiImport struct {
	params string // i is i32, I is i64
	void   bool
	call   wasiFunc
}

// wasi is all of WASI preview 1 that guests link to. There are no files,
// arguments, environment or sockets: a language's runtime starts and finds
// nothing.
var wasi = map[string]wasiImport{
	"args_get":                {"ii", false, ok},
	"args_sizes_get":          {"ii", false, zeroPair},
	"environ_get":             {"ii", false, ok},
	"environ_sizes_get":       {"ii", false, zeroPair},
	"clock_res_get":           {"ii", false, clockRes},
	"clock_time_get":          {"iIi", false, clockTime},
	"random_get":              {"ii", false, randomGet},
	"fd_write":                {"iiii", false, fdWrite},
	"poll_oneoff":             {"iiii", false, pollOneoff},
	"proc_exit":               {"i", true, procExit},
	"proc_raise":              {"i", false, nosys},
	"sched_yield":             {"", false, ok},
	"fd_advise":               {"iIIi", false, badf},
	"fd_allocate":             {"iII", false, badf},
	"fd_close":                {"i", false, badf},
	"fd_datasync":             {"i", false, badf},
	"fd_fdstat_get":           {"ii", false, badf},
	"fd_fdstat_set_flags":     {"ii", false, badf},
	"fd_fdstat_set_rights":    {"iII", false, badf},
	"fd_filestat_get":         {"ii", false, badf},
	"fd_filestat_set_size":    {"iI", false, badf},
	"fd_filestat_set_times":   {"iIIi", false, badf},
	"fd_pread":                {"iiiIi", false, badf},
	"fd_prestat_get":          {"ii", false, badf},
	"fd_prestat_dir_name":     {"iii", false, badf},
	"fd_pwrite":               {"iiiIi", false, badf},
	"fd_read":                 {"iiii", false, badf},
	"fd_readdir":              {"iiiIi", false, badf},
	"fd_renumber":             {"ii", false, badf},
	"fd_seek":                 {"iIii", false, badf},
	"fd_sync":                 {"i", false, badf},
	"fd_tell":                 {"ii", false, badf},
	"path_create_directory":   {"iii", false, badf},
	"path_filestat_get":       {"iiiii", false, badf},
	"path_filestat_set_times": {"iiiiIIi", false, badf},
	"path_link":               {"iiiiiii", false, badf},
	"path_open":               {"iiiiiIIii", false, badf},
	"path_readlink":           {"iiiiii", false, badf},
	"path_remove_directory":   {"iii", false, badf},
	"path_rename":             {"iiiiii", false, badf},
	"path_symlink":            {"iiiii", false, badf},
	"path_unlink_file":        {"iii", false, badf},
	"sock_accept":             {"iii", false, badf},
	"sock_recv":               {"iiiiii", false, badf},
	"sock_send":               {"iiiii", false, badf},
	"sock_shutdown":           {"ii", false, badf},
}

func (w wasiImport) types() (params, results []api.ValueType) {
	for _, c := range w.params {
		t := api.ValueTypeI32
		if c == 'I' {
			t = api.ValueTypeI64
		}
		params = append(params, t)
	}
	if !w.void {
		results = []api.ValueType{api.ValueTypeI32}
	}
	return params, results
}

// hostFunc charges the call and makes it.
func (w wasiImport) hostFunc() api.GoModuleFunc {
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		i, _ := ctx.Value(instanceKey{}).(*instance)
		if i == nil {
			panic(errors.New("host call without an instance"))
		}
		i.spendHost(1)
		errno := w.call(i, mod.Memory(), stack)
		if !w.void {
			stack[0] = uint64(errno)
		}
	}
}

func instantiateWASI(ctx context.Context, rt wazero.Runtime) error {
	b := rt.NewHostModuleBuilder(wasiModule)
	for name, w := range wasi {
		params, results := w.types()
		b.NewFunctionBuilder().WithGoModuleFunction(w.hostFunc(), params, results).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// instanceKey finds the instance in the context of a call.
type instanceKey struct{}

// callContext is the context of all calls of an instance. It is its own type
// because wazero asks it for a value in every call.
type callContext struct {
	context.Context
	i *instance
}

func (c *callContext) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return c.i
	}
	return nil
}

func (i *instance) spendHost(n int) {
	if i.hostCalls -= n; i.hostCalls < 0 {
		panic(errHostCalls)
	}
}

func ok(*instance, api.Memory, []uint64) uint32    { return errnoSuccess }
func badf(*instance, api.Memory, []uint64) uint32  { return errnoBadf }
func nosys(*instance, api.Memory, []uint64) uint32 { return errnoNosys }

func procExit(*instance, api.Memory, []uint64) uint32 { panic(errExit) }

// written is the errno of writes to the guest's memory.
func written(fine ...bool) uint32 {
	for _, f := range fine {
		if !f {
			return errnoFault
		}
	}
	return errnoSuccess
}

func zeroPair(_ *instance, mem api.Memory, s []uint64) uint32 {
	return written(mem.WriteUint32Le(uint32(s[0]), 0), mem.WriteUint32Le(uint32(s[1]), 0))
}

func clockRes(_ *instance, mem api.Memory, s []uint64) uint32 {
	return written(mem.WriteUint64Le(uint32(s[1]), 1))
}

func clockTime(_ *instance, mem api.Memory, s []uint64) uint32 {
	var t int64
	switch uint32(s[0]) {
	case 0:
		t = time.Now().UnixNano()
	case 1:
		t = int64(time.Since(started))
	default:
		return errnoInval
	}
	return written(mem.WriteUint64Le(uint32(s[2]), uint64(t)))
}

func randomGet(i *instance, mem api.Memory, s []uint64) uint32 {
	n := uint32(s[1])
	if n > maxRandom {
		return errnoInval
	}
	i.spendHost(int(n / bytesPerCall))
	buf, fine := mem.Read(uint32(s[0]), n)
	if !fine {
		return errnoFault
	}
	_, _ = rand.Read(buf) // It never fails.
	return errnoSuccess
}

// fdWrite takes what the guest prints. All of it is consumed; what is over the
// limit of a line, or comes too often, is not logged.
func fdWrite(i *instance, mem api.Memory, s []uint64) uint32 {
	fd, vecs, n := uint32(s[0]), uint32(s[1]), uint32(s[2])
	if fd != 1 && fd != 2 {
		return errnoBadf
	}
	if n > maxVectors {
		return errnoInval
	}
	var line strings.Builder
	var total uint32
	for k := range n {
		at, fine := mem.ReadUint32Le(vecs + 8*k)
		size, fine2 := mem.ReadUint32Le(vecs + 8*k + 4)
		buf, fine3 := mem.Read(at, size)
		if !fine || !fine2 || !fine3 {
			return errnoFault
		}
		total += size
		line.Write(buf[:min(len(buf), maxPrint-line.Len())])
	}
	i.print(line.String())
	return written(mem.WriteUint32Le(uint32(s[3]), total))
}

func (i *instance) print(line string) {
	if line = strings.TrimSpace(line); line != "" {
		i.m.log.printf("callout %q prints: %s", i.m.name, strings.ToValidUTF8(line, "?"))
	}
}

// pollOneoff says that everything is ready at once: nothing in a guest waits.
// A runtime that sleeps this way spends its budget.
func pollOneoff(_ *instance, mem api.Memory, s []uint64) uint32 {
	in, out, n := uint32(s[0]), uint32(s[1]), uint32(s[2])
	if n == 0 || n > maxVectors {
		return errnoInval
	}
	for k := range n {
		user, fine := mem.ReadUint64Le(in + 48*k)
		kind, fine2 := mem.ReadByte(in + 48*k + 8)
		at := out + 32*k
		if !fine || !fine2 || written(mem.WriteUint64Le(at, user), mem.WriteUint64Le(at+8, uint64(kind)<<16),
			mem.WriteUint64Le(at+16, 0), mem.WriteUint64Le(at+24, 0)) != errnoSuccess {
			return errnoFault
		}
	}
	return written(mem.WriteUint32Le(uint32(s[3]), n))
}

// signature prints the type of a function the way the text format does.
func signature(params, results []api.ValueType) string {
	names := func(ts []api.ValueType) string {
		var out []string
		for _, t := range ts {
			out = append(out, api.ValueTypeName(t))
		}
		return strings.Join(out, ", ")
	}
	return fmt.Sprintf("(%s) -> (%s)", names(params), names(results))
}
