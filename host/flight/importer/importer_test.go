package importer_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/flight/importer"
)

func format(name string) importer.Format {
	return importer.Formats[slices.IndexFunc(importer.Formats, func(f importer.Format) bool { return f.Name == name })]
}

func read(name string, src []byte) (found []*flight.Entry, err error) {
	err = format(name).Read(bytes.NewReader(src), func(e *flight.Entry) error { found = append(found, e); return nil })
	return found, err
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

const straceLog = `29265 execve("/usr/bin/sh", ["sh", "-c", "curl"...], 0x7ffdafaefce8 /* 39 vars */) = 0
29265 vfork( <unfinished ...>
29266 execve("/usr/bin/curl", ["curl", "-s"], 0x5604bf034d30 /* 39 vars */ <unfinished ...>
29265 <... vfork resumed>)              = 29266
29266 <... execve resumed>)             = 0
29266 socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = 3
29266 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)
29266 socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 5
29266 connect(5, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("198.51.100.7")}, 16) = -1 EINPROGRESS (Operation now in progress)
29266 +++ exited with 7 +++
29265 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=29266} ---
29265 clone(child_stack=NULL, flags=SIGCHLD, child_tidptr=0x7f59bb87fa10) = 29270
[pid 29270] 1700000000.250000 connect(7<UDPv6:[16153813]>, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>
29270 12:34:56 sendto(4, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(514), sin_addr=inet_addr("127.0.0.1")}, 16) = 1
29270 sendto(4, "x", 1, 0, NULL, 0) = 1
29270 execve("/nowhere", ["x"], 0x1) = -1 ENOENT (No such file or directory)
29270 connect(9, {sa_family=AF_INET, sin_port=htons(25), sin_addr=inet_addr("192.0.2.1")}, 16) = 0
`

func TestStrace(t *testing.T) {
	got, err := read("strace", []byte(straceLog))
	require.NoError(t, err)
	require.Equal(t, []*flight.Entry{
		{Program: "/usr/bin/curl", Process: 29266, Protocol: 6, Remote: addr("198.51.100.7:80")},
		{Program: "/usr/bin/sh", Process: 29270, Protocol: 17, Remote: addr("[2001:db8::1]:53"), Time: time.Unix(1_700_000_000, 250_000_000)},
		{Program: "/usr/bin/sh", Process: 29270, Protocol: 17, Remote: addr("127.0.0.1:514")},
		{Program: "/usr/bin/sh", Process: 29270, Protocol: 6, Remote: addr("192.0.2.1:25")},
	}, got)
}

// Its number is not said while a process is the only one, and another may have it later.
func TestStraceOfAProcessWithAThread(t *testing.T) {
	const to = `connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("192.0.2.1")}, 16) = 0` + "\n"
	got, err := read("strace", []byte(`execve("/usr/bin/curl", ["curl"], 0x1) = 0
socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP) = 3
clone3({flags=CLONE_VM|CLONE_THREAD}, 88strace: Process 8 attached
 <unfinished ...>
[pid     8] `+to+`[pid     7] <... clone3 resumed> => {parent_tid=[8]}, 88) = 8
[pid     7] `+to+`[pid     7] fork() = 9
[pid     9] execve("/bin/a", ["a"], 0x1) = 0
[pid     9] +++ exited with 0 +++
[pid     7] fork( <unfinished ...>
[pid     9] `+to+`[pid     7] <... fork resumed>) = 9
[pid     9] `+to))
	require.NoError(t, err)
	var programs []string
	for _, e := range got {
		programs = append(programs, e.Program)
		require.EqualValues(t, 17, e.Protocol)
	}
	require.Equal(t, slices.Repeat([]string{"/usr/bin/curl"}, 4), programs)
}

// Every child has the sockets of its parent: a small log must not make them very many.
func TestStraceOfManySocketsAndChildren(t *testing.T) {
	var log strings.Builder
	for fd := range 5000 {
		fmt.Fprintf(&log, "1 socket(AF_INET, SOCK_STREAM, 0) = %d\n", fd)
	}
	for child := range 2000 {
		fmt.Fprintf(&log, "1 fork() = %d\n", child+2)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := read("strace", []byte(log.String()))
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<20))
}

const conntrackTable = `tcp      6 431999 ESTABLISHED src=10.0.0.2 dst=192.0.2.7 sport=34567 dport=443 src=192.0.2.7 dst=10.0.0.2 sport=443 dport=34567 [ASSURED] mark=0 use=1
ipv6     10 udp      17 29 src=2001:db8::2 dst=2001:db8::1 sport=5353 dport=53 [UNREPLIED] src=2001:db8::1 dst=2001:db8::2 sport=53 dport=5353 mark=0 use=1
icmp     1 29 src=10.0.0.2 dst=192.0.2.7 type=8 code=0 id=2 src=192.0.2.7 dst=10.0.0.2 type=0 code=0 id=2 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.
`

func TestConntrack(t *testing.T) {
	got, err := read("conntrack", []byte(conntrackTable))
	require.NoError(t, err)
	require.Equal(t, []*flight.Entry{
		{Protocol: 6, Local: addr("10.0.0.2:34567"), Remote: addr("192.0.2.7:443")},
		{Protocol: 17, Local: addr("[2001:db8::2]:5353"), Remote: addr("[2001:db8::1]:53")},
	}, got)
}

const nftLog = `Nov 25 18:00:00 host kernel: [12.3] out: IN= OUT=eth0 SRC=10.0.0.2 DST=192.0.2.7 LEN=60 TOS=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=34567 DPT=443 WINDOW=64240 RES=0x00 SYN URGP=0 UID=1000 GID=1000
Nov 25 18:00:00 host kernel: [12.4] out: IN= OUT=eth0 SRC=10.0.0.2 DST=192.0.2.7 LEN=60 PROTO=TCP SPT=34567 DPT=443 WINDOW=64240 RES=0x00 ACK URGP=0
Nov 25 18:00:00 host kernel: [12.5] in: IN=eth0 OUT= MAC=00:11 SRC=192.0.2.9 DST=10.0.0.2 LEN=60 PROTO=UDP SPT=1000 DPT=53 LEN=20
Nov 25 18:00:01 host sshd[1]: something else
`

func TestNftLog(t *testing.T) {
	got, err := read("nftlog", []byte(nftLog))
	require.NoError(t, err)
	require.Equal(t, []*flight.Entry{
		{Protocol: 6, Local: addr("10.0.0.2:34567"), Remote: addr("192.0.2.7:443"), User: 1000, UserKnown: true},
		{Protocol: 17, Inbound: true, Local: addr("10.0.0.2:53"), Remote: addr("192.0.2.9:1000")},
	}, got)
}

// packets are a SYN, its answer, and a SYN over IPv6.
func packets(t testing.TB) (out [][]byte) {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4}
	ip4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IPv4(10, 0, 0, 2), DstIP: net.IPv4(192, 0, 2, 7)}
	ip6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: net.ParseIP("2001:db8::2"), DstIP: net.ParseIP("2001:db8::1")}
	eth6 := *eth
	eth6.EthernetType = layers.EthernetTypeIPv6
	for _, p := range [][]gopacket.SerializableLayer{
		{eth, ip4, &layers.TCP{SrcPort: 34567, DstPort: 443, SYN: true}},
		{eth, ip4, &layers.TCP{SrcPort: 443, DstPort: 34567, SYN: true, ACK: true}},
		{&eth6, ip6, &layers.TCP{SrcPort: 40000, DstPort: 80, SYN: true}},
	} {
		b := gopacket.NewSerializeBuffer()
		require.NoError(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, p...))
		out = append(out, bytes.Clone(b.Bytes()))
	}
	return out
}

func captured(t testing.TB, ng bool) []byte {
	t.Helper()
	var b bytes.Buffer
	var write func(gopacket.CaptureInfo, []byte) error
	if ng {
		w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
		require.NoError(t, err)
		defer w.Flush()
		write = func(i gopacket.CaptureInfo, p []byte) error { return errors.Join(w.WritePacket(i, p), w.Flush()) }
	} else {
		w := pcapgo.NewWriter(&b)
		require.NoError(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
		write = w.WritePacket
	}
	for i, p := range packets(t) {
		require.NoError(t, write(gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000+int64(i), 0), CaptureLength: len(p), Length: len(p)}, p))
	}
	return b.Bytes()
}

func TestPcap(t *testing.T) {
	for _, ng := range []bool{false, true} {
		got, err := read("pcap", captured(t, ng))
		require.NoError(t, err)
		for _, e := range got {
			e.Time = e.Time.Local()
		}
		require.Equal(t, []*flight.Entry{
			{Time: time.Unix(1_700_000_000, 0), Protocol: 6, Local: addr("10.0.0.2:34567"), Remote: addr("192.0.2.7:443")},
			{Time: time.Unix(1_700_000_002, 0), Protocol: 6, Local: addr("[2001:db8::2]:40000"), Remote: addr("[2001:db8::1]:80")},
		}, got)
	}
}

func utf16le(s string) (b []byte) {
	for _, c := range utf16.Encode([]rune(s)) {
		b = append(b, byte(c), byte(c>>8))
	}
	return b
}

var netEvents = `<?xml version="1.0"?>
<netEvents numItems="3">
	<item>
		<header>
			<timeStamp>2026-11-25T10:20:30.123Z</timeStamp>
			<flags numItems="2"><item>FWPM_NET_EVENT_FLAG_IP_PROTOCOL_SET</item><item>FWPM_NET_EVENT_FLAG_APP_ID_SET</item></flags>
			<ipVersion>FWP_IP_VERSION_V4</ipVersion>
			<ipProtocol>6</ipProtocol>
			<localAddrV4>10.0.0.2</localAddrV4>
			<remoteAddrV4>192.0.2.7</remoteAddrV4>
			<localPort>50000</localPort>
			<remotePort>443</remotePort>
			<appId>
				<data>` + hex.EncodeToString(utf16le(`\device\harddiskvolume3\app.exe`+"\x00")) + `</data>
				<asString>\.d.e.v.i.c.e...</asString>
			</appId>
			<userId>S-1-5-18</userId>
		</header>
		<type>FWPM_NET_EVENT_TYPE_CLASSIFY_DROP</type>
		<classifyDrop><filterId>68941</filterId><layerId>48</layerId><msFwpDirection>MS_FWP_DIRECTION_OUT</msFwpDirection></classifyDrop>
	</item>
	<item>
		<header><ipProtocol>17</ipProtocol><localAddrV6>2001:db8::2</localAddrV6><remoteAddrV6>2001:db8::1</remoteAddrV6><localPort>53</localPort><remotePort>4000</remotePort></header>
		<type>FWPM_NET_EVENT_TYPE_CLASSIFY_ALLOW</type>
		<classifyAllow><filterId>7</filterId><msFwpDirection>MS_FWP_DIRECTION_IN</msFwpDirection></classifyAllow>
	</item>
	<item><header><ipProtocol>6</ipProtocol></header><type>FWPM_NET_EVENT_TYPE_IKEEXT_MM_FAILURE</type></item>
</netEvents>
`

func TestNetEvents(t *testing.T) {
	want := []*flight.Entry{
		{Time: time.Date(2026, 11, 25, 10, 20, 30, 123e6, time.UTC), Protocol: 6, Program: `\device\harddiskvolume3\app.exe`,
			Local: addr("10.0.0.2:50000"), Remote: addr("192.0.2.7:443"), Outcome: &flight.Outcome{Action: "block", Filter: 68941}},
		{Protocol: 17, Inbound: true, Local: addr("[2001:db8::2]:53"), Remote: addr("[2001:db8::1]:4000"), Outcome: &flight.Outcome{Action: "permit", Filter: 7}},
	}
	utf16 := strings.Replace(netEvents, `version="1.0"`, `version="1.0" encoding="UTF-16"`, 1)
	for name, src := range map[string][]byte{"UTF-8": []byte(netEvents), "UTF-16": append([]byte{0xff, 0xfe}, utf16le(utf16)...)} {
		got, err := read("netevents", src)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
}

func TestWhatIsWrongHasItsPlace(t *testing.T) {
	for _, c := range []struct{ format, src, want string }{
		{"strace", "hello\nworld\n", "line 2: not one line is of strace -f"},
		{"strace", straceLog + `29270 connect(9, {sa_family=AF_INET, sin_port=htons(99999), sin_addr=inet_addr("192.0.2.1")}, 16) = 0`, `line 18: "99999" is no port`},
		{"strace", `1 connect(9, {sa_family=AF_INET, 0x1234}, 16) = 0`, "line 1: connect: its address cannot be read"},
		{"strace", `1 99999999999.0 connect(9, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("192.0.2.1")}, 16) = 0`, `line 1: "99999999999.0" is no time`},
		{"conntrack", "hello", "line 1: not one line is of conntrack -L"},
		{"conntrack", "tcp six src=1.2.3.4 dst=1.2.3.4", `line 1: "six" is no number of a protocol`},
		{"conntrack", "src=1.2.3.4", "line 1: the number of the protocol is missing"},
		{"conntrack", conntrackTable + "tcp 6 src=10.0.0.2 dst=host sport=1 dport=2", `line 5: "host" is no address`},
		{"conntrack", "tcp 6 src=10.0.0.2 dst=::1 sport=1 dport=2", "line 1: 10.0.0.2 and ::1 are of two address families"},
		{"nftlog", "\nhello", "line 2: not one line is of a log statement: SRC= and DST= are missing"},
		{"nftlog", "SRC=10.0.0.2 DST=192.0.2.7 PROTO=UDP SPT=1", `line 1: "" is no port`},
		{"nftlog", "SRC=10.0.0.2 DST=192.0.2.7 PROTO=UDP SPT=1 DPT=2 UID=me", `line 1: UID "me" is no number of a user`},
		{"nftlog", strings.Repeat("x", 2<<20), "line 1: the line is longer than 1048576 bytes"},
		{"pcap", "", "packet 1: the file is empty or cut off"},
		{"pcap", "hello, this is text of some length", "packet 1: this is no capture in pcap or pcapng: Unknown magic 6c6c6568"},
		{"netevents", "<a></a>", "line 1: there is no <netEvents>: expected what netsh wfp show netevents writes"},
		{"netevents", "<netEvents>\n" + strings.Repeat("x", 2<<20), "line 2: one element or text is longer than 1048576 bytes"},
		{"netevents", "<netEvents>\n<item><header>" + strings.Repeat("<a/>", 1<<19), "line 2: one element or text is longer than 1048576 bytes"},
		{"netevents", "<netEvents>\n<item>", "line 2: XML syntax error on line 2: unexpected EOF"},
		{"netevents", strings.Replace(netEvents, "<localPort>50000", "<localPort>x", 1), `line 3: "x" is no port`},
		{"netevents", strings.Replace(netEvents, "<data>5c", "<data>5", 1), "line 3: appId: "},
		{"netevents", strings.Replace(netEvents, "2026-11", "yesterday", 1), `line 3: timeStamp "yesterday-25T10:20:30.123Z" is no time`},
	} {
		_, err := read(c.format, []byte(c.src))
		require.ErrorContains(t, err, c.want, "%s: %.60s", c.format, c.src)
	}
}

// As where tcpdump was killed, or still writes.
func TestACaptureThatIsCutOffIsReadUpToThere(t *testing.T) {
	for _, ng := range []bool{false, true} {
		whole := captured(t, ng)
		before, ends := 0, 0
		for n := 30; n <= len(whole); n++ {
			got, err := read("pcap", whole[:n])
			switch at := (*importer.Error)(nil); {
			case err == nil:
				ends++
			case errors.As(err, &at):
				require.Equal(t, "packet 1: the file is empty or cut off", err.Error())
				require.Empty(t, got)
			default:
				require.Equal(t, importer.ErrCutOff, err)
			}
			require.GreaterOrEqual(t, len(got), before)
			before = len(got)
		}
		require.Equal(t, 2, before)
		require.LessOrEqual(t, ends, 5, "after the head, perhaps an interface, and each packet")
	}
}

// An editor on Windows puts it there.
func TestAByteOrderMarkIsNoPartOfTheFirstLine(t *testing.T) {
	for name, line := range map[string]string{
		"strace":    `1 connect(9, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("192.0.2.1")}, 16) = 0`,
		"conntrack": "tcp 6 src=10.0.0.2 dst=192.0.2.1 sport=1 dport=2",
		"nftlog":    "SRC=10.0.0.2 DST=192.0.2.1 PROTO=UDP SPT=1 DPT=2",
	} {
		got, err := read(name, []byte("\ufeff"+line+"\r\n"))
		require.NoError(t, err, name)
		require.Len(t, got, 1, name)
	}
}

func TestTheCallersErrorEndsIt(t *testing.T) {
	enough := errors.New("enough")
	for name, src := range map[string][]byte{"strace": []byte(straceLog), "conntrack": []byte(conntrackTable), "nftlog": []byte(nftLog),
		"pcap": captured(t, true), "netevents": []byte(netEvents)} {
		err := format(name).Read(bytes.NewReader(src), func(*flight.Entry) error { return enough })
		require.Equal(t, enough, err, name)
	}
}

// fuzz looks for input that makes a reader fail, finds what cannot connect, or is
// refused without a place.
func fuzz(f *testing.F, name string, seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		found, err := read(name, src)
		for _, e := range found {
			require.True(t, e.Remote.IsValid())
			require.NotZero(t, e.Protocol)
		}
		if err != nil && err != importer.ErrCutOff {
			var at *importer.Error
			require.ErrorAs(t, err, &at)
			require.Positive(t, at.Line+at.Unit)
		}
	})
}

func FuzzStrace(f *testing.F)    { fuzz(f, "strace", []byte(straceLog)) }
func FuzzConntrack(f *testing.F) { fuzz(f, "conntrack", []byte(conntrackTable)) }
func FuzzNftLog(f *testing.F)    { fuzz(f, "nftlog", []byte(nftLog)) }
func FuzzPcap(f *testing.F)      { fuzz(f, "pcap", captured(f, false), captured(f, true)) }
func FuzzNetEvents(f *testing.F) { fuzz(f, "netevents", []byte(netEvents)) }
