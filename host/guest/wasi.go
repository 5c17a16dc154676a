package guest

import (
	"context"
	"errors"
	"strings"
	"time"

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

const maxVectors = 64

// errExit is what proc_exit does: a callout has no process to end.
var errExit = errors.New("the guest called proc_exit")

// errno makes a host function of one that returns an error number of WASI.
func errno(params string, call func(i *instance, mem api.Memory, stack []uint64) uint32) hostFunc {
	return hostFunc{params, "i", 0, func(i *instance, mem api.Memory, stack []uint64) uint64 {
		return uint64(call(i, mem, stack))
	}, nil}
}

// wasi is all of WASI preview 1 that guests link to. There are no files,
// arguments, environment or sockets: a language's runtime starts and finds
// nothing.
var wasi = map[string]hostFunc{
	"args_get":                errno("ii", ok),
	"args_sizes_get":          errno("ii", zeroPair),
	"environ_get":             errno("ii", ok),
	"environ_sizes_get":       errno("ii", zeroPair),
	"clock_res_get":           errno("ii", clockRes),
	"clock_time_get":          errno("iIi", clockTime),
	"random_get":              errno("ii", randomGet),
	"fd_write":                errno("iiii", fdWrite),
	"poll_oneoff":             errno("iiii", pollOneoff),
	"proc_exit":               {"i", "", 0, procExit, nil},
	"proc_raise":              errno("i", nosys),
	"sched_yield":             errno("", ok),
	"fd_advise":               errno("iIIi", badf),
	"fd_allocate":             errno("iII", badf),
	"fd_close":                errno("i", badf),
	"fd_datasync":             errno("i", badf),
	"fd_fdstat_get":           errno("ii", badf),
	"fd_fdstat_set_flags":     errno("ii", badf),
	"fd_fdstat_set_rights":    errno("iII", badf),
	"fd_filestat_get":         errno("ii", badf),
	"fd_filestat_set_size":    errno("iI", badf),
	"fd_filestat_set_times":   errno("iIIi", badf),
	"fd_pread":                errno("iiiIi", badf),
	"fd_prestat_get":          errno("ii", badf),
	"fd_prestat_dir_name":     errno("iii", badf),
	"fd_pwrite":               errno("iiiIi", badf),
	"fd_read":                 errno("iiii", badf),
	"fd_readdir":              errno("iiiIi", badf),
	"fd_renumber":             errno("ii", badf),
	"fd_seek":                 errno("iIii", badf),
	"fd_sync":                 errno("i", badf),
	"fd_tell":                 errno("ii", badf),
	"path_create_directory":   errno("iii", badf),
	"path_filestat_get":       errno("iiiii", badf),
	"path_filestat_set_times": errno("iiiiIIi", badf),
	"path_link":               errno("iiiiiii", badf),
	"path_open":               errno("iiiiiIIii", badf),
	"path_readlink":           errno("iiiiii", badf),
	"path_remove_directory":   errno("iii", badf),
	"path_rename":             errno("iiiiii", badf),
	"path_symlink":            errno("iiiii", badf),
	"path_unlink_file":        errno("iii", badf),
	"sock_accept":             errno("iii", badf),
	"sock_recv":               errno("iiiiii", badf),
	"sock_send":               errno("iiiii", badf),
	"sock_shutdown":           errno("ii", badf),
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

func ok(*instance, api.Memory, []uint64) uint32    { return errnoSuccess }
func badf(*instance, api.Memory, []uint64) uint32  { return errnoBadf }
func nosys(*instance, api.Memory, []uint64) uint32 { return errnoNosys }

func procExit(*instance, api.Memory, []uint64) uint64 { panic(errExit) }

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
	buf, fine := i.bytes(mem, s[0], uint64(n))
	if !fine {
		return errnoFault
	}
	i.random(buf)
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
	i.spendHost(int(n) / itemsPerCall)
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
	i.spendHost(len(line) / linePerCall)
	if line = strings.TrimSpace(line); line != "" {
		i.m.log.Printf("callout %q prints: %s", i.m.name, line)
	}
}

// pollOneoff says that everything is ready at once: nothing in a guest waits.
// A runtime that sleeps this way spends its budget.
func pollOneoff(i *instance, mem api.Memory, s []uint64) uint32 {
	in, out, n := uint32(s[0]), uint32(s[1]), uint32(s[2])
	if n == 0 || n > maxVectors {
		return errnoInval
	}
	i.spendHost(int(n) / itemsPerCall)
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
