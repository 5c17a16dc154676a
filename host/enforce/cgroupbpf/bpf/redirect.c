//go:build ignore

// The kernel's part: connects and datagrams of a cgroup.
//
// What the policy decides by address, port, protocol and user alone is decided
// here, from cells that user space computed. A TCP connect that needs more, and a
// datagram that a callout may redirect, are sent to the daemon's port in the same
// network namespace, with a record of what the program asked for; they never go where
// it asked for undecided. Anything else that needs more is refused.

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define IPPROTO_HOPOPTS 0
#define IPPROTO_IPIP 4
#define IPPROTO_IPV6 41
#define IPPROTO_ROUTING 43
#define IPPROTO_DSTOPTS 60
#define IPOPT_END 0
#define IPOPT_NOP 1
#define IPOPT_LSRR 131
#define IPOPT_SSRR 137
#define SOCK_RAW 3
#define TCP_SYNCNT 7
#define EACCES 13
#define EEXIST 17

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// ASK is what the engine is asked about a connection, CALLOUT about a datagram, too.
enum verdict { ASK = 0, PERMIT = 1, BLOCK = 2, CALLOUT = 3 };

// Protocols of the cells of sockets that are decided when they are made, since these
// hooks do not see where they send to: a raw one can send anything, others what is
// neither TCP nor UDP.
enum unseen { OTHERS = 254, RAW = 255 };

// KERNEL marks the record of a connect that a thread of the kernel makes for a connection.
#define KERNEL 251

// AWAY marks the record of a packet for loopback that would leave by another device, to
// which its socket was bound after the connect, or which a datagram names for itself.
#define AWAY 250

// ROUTED marks the record of a packet with a source route, which goes to the first
// address of the route and not to where its socket sends.
#define ROUTED 252

// LINK marks the record of what goes to an address that means something on one link only,
// where the kernel does not show which that is, or keeps to it.
#define LINK 249

// BOUND marks the record of a socket that is bound to a device, from which nothing comes
// to the daemon.
#define BOUND 253
#define LOOPBACK_IFINDEX 1

// How long a connect waits for the daemon to listen in a network namespace that it
// did not know, and how long after that it is asked again.
#define WAIT_NS 10000000ULL
#define AGAIN_NS 1000000000ULL

// After how many jiffies the SYN of a connection that is held is repeated first, instead
// of after a second: 0.1 s with CONFIG_HZ=250.
#define REPEAT 25

// family says at which layers an address is asked about.
enum family { V4 = 4, V6 = 6, MAPPED = 46 };

struct config {
	__u32 prefix[2];  // the first half of the IPv6 addresses that stand in for others
	__u32 generation; // its lowest bit chooses the cells
	__u32 daemon;     // its process, whose own sockets are left alone; 0 if it is gone
	__u32 tell;       // user space hears of what is permitted, too
	__u16 tcp4, tcp6; // its ports in its own network namespace, and in others if they are free
	__u64 cgroup;     // the daemon's, without which its number is not it; 0: to be found out
	__u32 users;      // the policy names some
	__u32 pad;
};

// A home is where the daemon listens in a network namespace: ports in network order,
// 0 for what it does not, or not yet.
struct home {
	__u64 asked; // when it was asked to
	__u16 tcp4, tcp6, udp4, udp6;
	__u64 whole; // there will be no other ports; without any it cannot listen
};

// A cell is a part of the space of connections that the policy decides alike.
struct cell_key {
	__u32 prefixlen;
	__u8 generation, family, protocol, pad;
	__u16 port_class, user_class;
	__u8 address[16];
};

struct cell {
	__u32 verdict;
	__u32 pad;
	__u64 filter;
};

// A record is what a program asked for.
struct record {
	__u8 address[16]; // v4 as v4-mapped
	__u16 port;       // network order
	__u8 family, protocol;
	__u32 process, user;
	__u32 verdict;
	__u64 filter;
	__u64 cookie;
	__u64 cgroup;
	__u64 netns;
	__u32 unseen; // of a socket that was to be made; or BOUND; else 0
	__u32 held;   // its SYN waits until the daemon listens
	__u32 scope;  // the link of an address of one; 0: not known
	__u32 pad;
	__u8 command[16]; // what the process calls itself, ended with a 0
};

// A source names a connection by the address that the daemon sees.
struct source {
	__u64 netns;
	__u8 address[16];
	__u16 port; // host order
	__u16 pad;
	__u32 pad2;
};

// A sending is who sends datagrams by a socket to an address. Another process or user that
// has the socket is decided for itself.
struct sending {
	__u64 cookie;
	__u8 address[16];
	__u32 process, user;
	__u16 port; // network order
	__u16 pad[3];
};

struct user_key {
	__u32 generation, user;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} configs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);
	__type(key, struct cell_key);
	__type(value, struct cell);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 << 16);
	__type(key, __u32);
	__type(value, __u16);
} port_classes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct user_key);
	__type(value, __u16);
} user_classes SEC(".maps");

// asked is freed with the socket.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct record);
} asked SEC(".maps");

// strays has the connections of which user space has heard that their packets have a
// source route: each is told once.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} strays SEC(".maps");

// waiting has the records of connections that the daemon has not accepted yet. What a
// full map forgets the daemon refuses: it has no record.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct source);
	__type(value, struct record);
} waiting SEC(".maps");

struct address {
	__u32 words[4]; // v4 as v4-mapped
};

// flows has the records of datagrams, by the address that stands in for where they
// were going: one of 127.128.0.0/10 or of the prefix for each sending, so that the
// daemon knows it and answers from there. What a full map forgets gets another one.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct address);
	__type(value, struct record);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct sending);
	__type(value, struct address);
} stand_ins SEC(".maps");

// homes are by the cookie of their network namespace. In a full map there is no room
// for another one: what needs an answer there is refused.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 10);
	__type(key, __u64);
	__type(value, struct home);
} homes SEC(".maps");

// strangers has the records of those who wait for a home.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} strangers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

// untold is how many records the events had no room for.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} untold SEC(".maps");

// tell tells user space, or counts what it does not hear of.
static __always_inline void tell(struct record *r)
{
	__u32 zero = 0;
	if (bpf_ringbuf_output(&events, r, sizeof(*r), 0) == 0)
		return;
	__u64 *n = bpf_map_lookup_elem(&untold, &zero);
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline struct config *config(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&configs, &zero);
}

// decide looks the cell of a connection, or of a socket, up. Without one it is ASK.
static __always_inline void decide(struct config *c, struct record *r)
{
	__u32 parity = c->generation & 1;
	struct cell_key k = {
		.prefixlen = 64 + 128, .generation = parity, .family = r->family, .protocol = r->protocol,
	};
	if (r->unseen)
		k.protocol = r->unseen;
	else if (r->protocol != IPPROTO_TCP && r->protocol != IPPROTO_UDP)
		k.protocol = 0;
	__u32 port = parity << 16 | bpf_ntohs(r->port);
	__u16 *class = bpf_map_lookup_elem(&port_classes, &port);
	if (class)
		k.port_class = *class;
	if (c->users) {
		struct user_key u = {.generation = parity, .user = r->user};
		class = bpf_map_lookup_elem(&user_classes, &u);
		if (class)
			k.user_class = *class;
	}
	__builtin_memcpy(k.address, r->address, 16);
	struct cell *cell = bpf_map_lookup_elem(&cells, &k);
	if (cell) {
		r->verdict = cell->verdict;
		r->filter = cell->filter;
	}
}

// itself reports whether the daemon calls, whose sockets are left alone. Once it was
// killed another program can get its number, but not into its cgroup.
static __always_inline int itself(struct config *c, struct record *r)
{
	if (r->process != c->daemon)
		return 0;
	r->cgroup = bpf_get_current_cgroup_id();
	if (!c->cgroup)
		c->cgroup = r->cgroup;
	return r->cgroup == c->cgroup;
}

// anonymous reports whether a thread of the kernel connects, for a connection of MPTCP,
// and what is decided depends on whose that is. A program that calls itself so is taken
// for one, and loses by it.
static __always_inline int anonymous(struct config *c, struct record *r)
{
	if (r->verdict == BLOCK || (r->verdict == PERMIT && !c->users) || __builtin_memcmp(r->command, "kworker/", 8))
		return 0;
	r->verdict = ASK;
	r->unseen = KERNEL;
	return 1;
}

// What is read of the kernel's own structures; the loader finds where they have it.
typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t euid;
} __attribute__((preserve_access_index));

struct task_struct {
	const struct cred *cred;
} __attribute__((preserve_access_index));

// user is for whom the caller acts. Without a task, as where the kernel does not describe
// itself (see withoutTypes), it is who it is.
static __always_inline __u32 user(void)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	if (task && task->cred)
		return task->cred->euid.val;
	return (__u32)bpf_get_current_uid_gid();
}

// who fills in what decides.
static __always_inline void who(struct bpf_sock_addr *ctx, struct record *r)
{
	r->process = bpf_get_current_pid_tgid() >> 32;
	r->user = user();
	r->protocol = ctx->protocol;
	r->port = ctx->user_port;
}

// whole fills in the rest, which most connects that are permitted do not need.
static __always_inline void whole(struct bpf_sock_addr *ctx, struct record *r)
{
	r->cookie = bpf_get_socket_cookie(ctx);
	r->cgroup = bpf_get_current_cgroup_id();
	r->netns = bpf_get_netns_cookie(ctx);
	bpf_get_current_comm(r->command, sizeof(r->command));
}

// here4 and here6 write out an address that is not given: the kernel takes the socket's
// own instead, or loopback. So what is decided is where it goes.
static __always_inline void here4(struct bpf_sock_addr *ctx, __u32 own)
{
	if (!ctx->user_ip4)
		ctx->user_ip4 = own ? own : bpf_htonl(0x7f000001);
}

static __always_inline void here6(struct bpf_sock_addr *ctx)
{
	__u32 a[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	int mapped = a[2] == bpf_htonl(0xffff);
	if (a[0] || a[1] || a[3] || (a[2] && !mapped))
		return;
	struct bpf_sock *sk = ctx->sk;
	int v4 = sk && sk->src_ip6[2] == bpf_htonl(0xffff) && !sk->src_ip6[0] && !sk->src_ip6[1]; // bound to a mapped address
	__u32 own = v4 && mapped ? sk->src_ip6[3] : 0;
	if (mapped || v4) {
		ctx->user_ip6[2] = bpf_htonl(0xffff);
		ctx->user_ip6[3] = own ? own : bpf_htonl(0x7f000001);
	} else {
		ctx->user_ip6[3] = bpf_htonl(1);
	}
}

static __always_inline void set_v4(struct record *r, __u32 address)
{
	r->family = V4;
	r->address[10] = r->address[11] = 0xff;
	__builtin_memcpy(r->address + 12, &address, 4);
}

static __always_inline void set_v6(struct bpf_sock_addr *ctx, struct record *r)
{
	__u32 a[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	r->family = !a[0] && !a[1] && a[2] == bpf_htonl(0xffff) ? MAPPED : V6;
	__builtin_memcpy(r->address, a, 16);
}

// refuse tells user space and fails the system call.
static __always_inline int refuse(struct record *r)
{
	r->held = 0;
	tell(r);
	bpf_set_retval(-EACCES);
	return 0;
}

// permit lets a connect go on.
static __always_inline int permit(struct config *c, struct record *r)
{
	if (c->tell)
		tell(r);
	return 1;
}

// remember keeps the record with the socket, and tells user space if it is held. False
// is out of memory.
static __always_inline int remember(struct bpf_sock_addr *ctx, struct record *r)
{
	if (!ctx->sk)
		return 0;
	struct record *kept = bpf_sk_storage_get(&asked, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return 0;
	*kept = *r;
	if (r->held)
		tell(r);
	return 1;
}

static __always_inline void forget(struct bpf_sock_addr *ctx)
{
	if (ctx->sk)
		bpf_sk_storage_delete(&asked, ctx->sk);
}

static __always_inline __u32 v4_of(struct record *r)
{
	__u32 a;
	__builtin_memcpy(&a, r->address + 12, 4);
	return a;
}

// A wait ends when the daemon listens for the record in the namespace, or in time.
struct wait {
	struct record *r;
	__u64 until;
};

static __always_inline __u16 port_of(struct home *h, struct record *r)
{
	if (r->protocol == IPPROTO_TCP)
		return r->family == V6 ? h->tcp6 : h->tcp4;
	return r->family == V6 ? h->udp6 : h->udp4;
}

static long waited(__u32 i, struct wait *w)
{
	__u64 netns = w->r->netns;
	struct home *h = bpf_map_lookup_elem(&homes, &netns);
	return (h && (h->whole || port_of(h, w->r))) || bpf_ktime_get_ns() > w->until;
}

// later is where the daemon will listen for a connection, 0 if it will not. Until then
// no SYN leaves.
static __always_inline __u16 later(struct config *c, struct record *r)
{
	__u16 port = r->family == V6 ? c->tcp6 : c->tcp4;
	if (r->protocol != IPPROTO_TCP || !port)
		return 0;
	r->held = 1;
	return port;
}

// listening is the port where the daemon listens for a record in the socket's network
// namespace, 0 if it does not. Of a namespace that it does not know it is told, and gets
// a moment, as a program cannot sleep here. A connection then waits by itself.
static __always_inline __u16 listening(struct config *c, struct record *r)
{
	struct home *h = bpf_map_lookup_elem(&homes, &r->netns);
	__u64 now = bpf_ktime_get_ns();
	if (h && port_of(h, r))
		return port_of(h, r);
	if (!c->daemon || (h && h->whole && (h->tcp4 || now - h->asked < AGAIN_NS)))
		return 0;
	struct home empty = {.asked = now};
	long failed = h ? 0 : bpf_map_update_elem(&homes, &r->netns, &empty, BPF_NOEXIST);
	if (failed == -EEXIST) // Somebody else was faster.
		h = bpf_map_lookup_elem(&homes, &r->netns);
	else if (failed)
		return 0;
	if (!h || now - h->asked > AGAIN_NS) {
		if (h) {
			h->asked = now;
			h->whole = 0;
		}
		bpf_ringbuf_output(&strangers, r, sizeof(*r), BPF_RB_FORCE_WAKEUP);
	} else {
		now = h->asked;
	}
	struct wait w = {.r = r, .until = now + WAIT_NS};
	bpf_loop(1 << 23, waited, &w, 0);
	h = bpf_map_lookup_elem(&homes, &r->netns);
	if (h && (h->whole || port_of(h, r)))
		return port_of(h, r);
	return later(c, r);
}

// announce tells of a network namespace that the daemon does not know when the first
// socket is made there: it mostly listens when that connects. Nobody waits yet.
static __always_inline void announce(struct config *c, struct record *r)
{
	if (!c || !c->daemon || bpf_map_lookup_elem(&homes, &r->netns))
		return;
	struct home empty = {.asked = bpf_ktime_get_ns() - AGAIN_NS};
	if (bpf_map_update_elem(&homes, &r->netns, &empty, BPF_NOEXIST))
		return;
	r->verdict = PERMIT;
	bpf_ringbuf_output(&strangers, r, sizeof(*r), BPF_RB_FORCE_WAKEUP);
}

// same reports whether a record is of the socket, the sender and the destination of another one.
static __always_inline int same(struct record *a, struct record *b)
{
	__u64 x[2], y[2];
	__builtin_memcpy(x, a->address, 16);
	__builtin_memcpy(y, b->address, 16);
	return a->cookie == b->cookie && a->process == b->process && a->user == b->user && a->port == b->port && x[0] == y[0] && x[1] == y[1];
}

// draw draws an address of those that stand in.
static __always_inline void draw(struct config *c, struct record *r, struct address *to)
{
	if (r->family == V6) {
		to->words[0] = c->prefix[0];
		to->words[1] = c->prefix[1];
		to->words[2] = bpf_get_prandom_u32();
		to->words[3] = bpf_get_prandom_u32();
		return;
	}
	to->words[0] = to->words[1] = 0;
	to->words[2] = bpf_htonl(0xffff);
	to->words[3] = bpf_htonl(0x7f800000 | (bpf_get_prandom_u32() & 0x3fffff));
}

// stand_in finds the address that a sender's datagrams are to be sent to, and returns
// the port, 0 if there is none. A socket that connects gets a new one: its own port may
// be another.
static __always_inline __u16 stand_in(struct config *c, struct record *r, int fresh, struct address *to)
{
	__u16 port = r->verdict == CALLOUT && r->protocol == IPPROTO_UDP ? listening(c, r) : 0;
	if (!port)
		return 0;
	struct sending k = {.cookie = r->cookie, .process = r->process, .user = r->user, .port = r->port};
	__builtin_memcpy(k.address, r->address, 16);
	struct address *known = fresh ? 0 : bpf_map_lookup_elem(&stand_ins, &k);
	if (known && (r->family != V6 || (known->words[0] == c->prefix[0] && known->words[1] == c->prefix[1]))) {
		*to = *known;
		struct record *f = bpf_map_lookup_elem(&flows, to);
		if (f && same(f, r))
			return port;
	}
	for (int i = 0; i < 4; i++) {
		draw(c, r, to);
		if (bpf_map_update_elem(&flows, to, r, BPF_NOEXIST) == 0) {
			bpf_map_update_elem(&stand_ins, &k, to, BPF_ANY);
			return port;
		}
	}
	return 0;
}

// reaches reports whether the daemon can be reached from a socket.
static __always_inline int reaches(struct bpf_sock_addr *ctx, struct record *r)
{
	if (!ctx->sk || ctx->sk->bound_dev_if <= LOOPBACK_IFINDEX)
		return 1;
	r->unseen = BOUND;
	return 0;
}

// of_link reports whether an address means something on one link only.
static __always_inline int of_link(struct record *r)
{
	__u8 *a = r->address;
	if (r->family != V6)
		return 0;
	return a[0] == 0xfe ? (a[1] & 0xc0) == 0x80 : a[0] == 0xff && ((a[1] & 15) == 1 || (a[1] & 15) == 2);
}

struct sockaddr6 {
	__u16 family, port;
	__u32 flow;
	__u8 address[16];
	__u32 scope;
};

// link_of finds the link of a connect, which these hooks do not show: it is read where the
// kernel has it, behind the second pointer of what ctx is there (bpf_sock_addr_kern). That
// the address is found there, too, says that this kernel is like that.
static __always_inline int link_of(struct bpf_sock_addr *ctx, struct record *r)
{
	void *kernel[2] = {};
	struct sockaddr6 a = {};
	__u64 x[2], y[2];
	if (!of_link(r))
		return 1;
	if (bpf_probe_read_kernel(kernel, sizeof(kernel), ctx) == 0 && bpf_probe_read_kernel(&a, sizeof(a), kernel[1]) == 0) {
		__builtin_memcpy(x, a.address, 16);
		__builtin_memcpy(y, r->address, 16);
		if (a.family == AF_INET6 && a.port == r->port && x[0] == y[0] && x[1] == y[1]) {
			r->scope = a.scope;
			return 1;
		}
	}
	r->unseen = LINK;
	return 0;
}

// off_link reports whether a datagram can be sent to the daemon: the kernel would send one
// for a link by its device, whatever the address becomes.
static __always_inline int off_link(struct record *r)
{
	if (!of_link(r))
		return 1;
	r->unseen = LINK;
	return 0;
}

// elsewhere finds where the daemon takes a connect, and returns the port.
static __always_inline __u16 elsewhere(struct config *c, struct record *r, struct address *to)
{
	if (r->protocol != IPPROTO_TCP)
		return stand_in(c, r, 1, to);
	to->words[0] = to->words[1] = 0;
	to->words[2] = r->family == V6 ? 0 : bpf_htonl(0xffff);
	to->words[3] = r->family == V6 ? bpf_htonl(1) : bpf_htonl(0x7f000001);
	return listening(c, r);
}

// ours reports whether a program itself names an address that stands in for others, by
// which it could speak for another one.
static __always_inline int ours(struct bpf_sock_addr *ctx, struct config *c, struct record *r)
{
	if (r->protocol != IPPROTO_UDP)
		return 0;
	if (r->family == V6) {
		__u32 prefix[2];
		__builtin_memcpy(prefix, r->address, 8);
		return prefix[0] == c->prefix[0] && prefix[1] == c->prefix[1];
	}
	if (r->address[12] != 127)
		return 0;
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct home *h = bpf_map_lookup_elem(&homes, &netns);
	return h && r->port == h->udp4;
}

// its reports whether an address stands in for where the socket sends. The kernel asks
// about each datagram of a socket of IPv6 that is connected to an IPv4 address.
static __always_inline int its(struct record *r)
{
	struct address a;
	__builtin_memcpy(&a, r->address, 16);
	struct record *f = bpf_map_lookup_elem(&flows, &a);
	return f && f->cookie == r->cookie;
}

static __always_inline void set_to_v6(struct bpf_sock_addr *ctx, struct address *to)
{
	ctx->user_ip6[0] = to->words[0];
	ctx->user_ip6[1] = to->words[1];
	ctx->user_ip6[2] = to->words[2];
	ctx->user_ip6[3] = to->words[3];
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	__u32 protocol = ctx->protocol;
	struct record r = {.unseen = ctx->type == SOCK_RAW ? RAW : OTHERS};
	struct config *c = config();
	r.process = bpf_get_current_pid_tgid() >> 32;
	r.netns = bpf_get_netns_cookie(ctx);
	if (c && itself(c, &r))
		return 1;
	if (r.unseen == OTHERS && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_MPTCP)) {
		announce(c, &r);
		return 1;
	}
	r.user = user();
	r.protocol = protocol;
	bpf_get_current_comm(r.command, sizeof(r.command));
	if (ctx->family == AF_INET)
		set_v4(&r, 0);
	else
		r.family = V6;
	if (c)
		decide(c, &r);
	return r.verdict == PERMIT ? 1 : refuse(&r);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	struct address to;
	here4(ctx, ctx->sk ? ctx->sk->src_ip4 : 0);
	who(ctx, &r);
	set_v4(&r, ctx->user_ip4);
	if (!c)
		return refuse(&r);
	forget(ctx); // of an earlier connect
	if (itself(c, &r))
		return 1;
	if (ours(ctx, c, &r)) {
		whole(ctx, &r);
		return refuse(&r);
	}
	decide(c, &r);
	if (r.verdict == PERMIT && !c->users && !c->tell)
		return 1;
	whole(ctx, &r);
	if (anonymous(c, &r))
		return refuse(&r);
	if (r.verdict == PERMIT)
		return permit(c, &r);
	if (r.verdict == BLOCK)
		return refuse(&r);
	__u16 port = reaches(ctx, &r) ? elsewhere(c, &r, &to) : 0;
	if (!port || !remember(ctx, &r))
		return refuse(&r);
	ctx->user_ip4 = to.words[3];
	ctx->user_port = port;
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	struct address to;
	here6(ctx);
	who(ctx, &r);
	set_v6(ctx, &r);
	if (!c)
		return refuse(&r);
	forget(ctx);
	if (itself(c, &r))
		return 1;
	if (ours(ctx, c, &r)) {
		whole(ctx, &r);
		return refuse(&r);
	}
	decide(c, &r);
	if (r.verdict == PERMIT && !c->users && !c->tell)
		return 1;
	whole(ctx, &r);
	if (anonymous(c, &r))
		return refuse(&r);
	if (r.verdict == PERMIT)
		return permit(c, &r);
	if (r.verdict == BLOCK)
		return refuse(&r);
	__u16 port = reaches(ctx, &r) && link_of(ctx, &r) ? elsewhere(c, &r, &to) : 0;
	if (!port || !remember(ctx, &r))
		return refuse(&r);
	set_to_v6(ctx, &to);
	ctx->user_port = port;
	return 1;
}

// connected reports whether a datagram goes to whom its socket is connected to, which was
// decided then. The kernel shows those that have control messages, without an address;
// nobody can name the port 0.
static __always_inline int connected(struct bpf_sock_addr *ctx) { return !ctx->user_port; }

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	struct address to;
	if (connected(ctx))
		return 1;
	here4(ctx, ctx->msg_src_ip4);
	who(ctx, &r);
	set_v4(&r, ctx->user_ip4);
	if (!c)
		return refuse(&r);
	if (itself(c, &r))
		return 1;
	if (ours(ctx, c, &r)) {
		whole(ctx, &r);
		return its(&r) ? 1 : refuse(&r);
	}
	decide(c, &r);
	if (r.verdict == PERMIT)
		return 1;
	whole(ctx, &r);
	__u16 port = reaches(ctx, &r) ? stand_in(c, &r, 0, &to) : 0;
	if (!port)
		return refuse(&r);
	ctx->user_ip4 = to.words[3];
	ctx->user_port = port;
	return 1;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	struct address to;
	if (connected(ctx))
		return 1;
	here6(ctx);
	who(ctx, &r);
	set_v6(ctx, &r);
	if (!c)
		return refuse(&r);
	if (itself(c, &r))
		return 1;
	if (ours(ctx, c, &r)) {
		whole(ctx, &r);
		return its(&r) ? 1 : refuse(&r);
	}
	decide(c, &r);
	if (r.verdict == PERMIT)
		return 1;
	whole(ctx, &r);
	__u16 port = reaches(ctx, &r) && off_link(&r) ? stand_in(c, &r, 0, &to) : 0;
	if (!port)
		return refuse(&r);
	set_to_v6(ctx, &to);
	ctx->user_port = port;
	return 1;
}

// answered is the record of the datagrams that one from the daemon answers.
static __always_inline struct record *answered(struct bpf_sock_addr *ctx, struct address *from, int v6)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct home *h = bpf_map_lookup_elem(&homes, &netns);
	if (!h || ctx->user_port != (v6 ? h->udp6 : h->udp4))
		return 0;
	struct record *r = bpf_map_lookup_elem(&flows, from);
	return r && r->cookie == bpf_get_socket_cookie(ctx) ? r : 0;
}

static __always_inline int loopback(__u32 v4)
{
	return (v4 & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

// An answer comes from whom the program asked.
SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct address from = {.words = {0, 0, bpf_htonl(0xffff), ctx->user_ip4}};
	struct record *r = loopback(from.words[3]) ? answered(ctx, &from, 0) : 0;
	if (r) {
		ctx->user_ip4 = v4_of(r);
		ctx->user_port = r->port;
	}
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct address from = {.words = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
	struct config *c = config();
	struct record *r = 0;
	if (c && from.words[0] == c->prefix[0] && from.words[1] == c->prefix[1])
		r = answered(ctx, &from, 1);
	else if (!from.words[0] && !from.words[1] && from.words[2] == bpf_htonl(0xffff) && loopback(from.words[3]))
		r = answered(ctx, &from, 0);
	if (r) {
		__builtin_memcpy(&from, r->address, 16);
		set_to_v6(ctx, &from);
		ctx->user_port = r->port;
	}
	return 1;
}

// A program that asks whom it is connected to hears whom it asked for.
SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct record *r = ctx->sk ? bpf_sk_storage_get(&asked, ctx->sk, 0, 0) : 0;
	if (r) {
		ctx->user_ip4 = v4_of(r);
		ctx->user_port = r->port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct record *r = ctx->sk ? bpf_sk_storage_get(&asked, ctx->sk, 0, 0) : 0;
	if (r) {
		struct address a;
		__builtin_memcpy(&a, r->address, 16);
		set_to_v6(ctx, &a);
		ctx->user_port = r->port;
	}
	return 1;
}

// Plain loads: clang would merge the branches for v4 and v6 into one load through
// a computed pointer, which the verifier refuses.
#define LOAD(v, field) \
	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(v) : "r"(ctx), "i"(__builtin_offsetof(struct bpf_sock_ops, field)))

static __always_inline void source(struct bpf_sock_ops *ctx, struct source *s)
{
	__u64 v;
	__u32 w;
	s->netns = bpf_get_netns_cookie(ctx);
	LOAD(v, family);
	if (v == AF_INET) {
		s->address[10] = s->address[11] = 0xff;
		LOAD(v, local_ip4);
		w = v;
		__builtin_memcpy(s->address + 12, &w, 4);
	} else {
		LOAD(v, local_ip6[0]);
		w = v;
		__builtin_memcpy(s->address, &w, 4);
		LOAD(v, local_ip6[1]);
		w = v;
		__builtin_memcpy(s->address + 4, &w, 4);
		LOAD(v, local_ip6[2]);
		w = v;
		__builtin_memcpy(s->address + 8, &w, 4);
		LOAD(v, local_ip6[3]);
		w = v;
		__builtin_memcpy(s->address + 12, &w, 4);
	}
	LOAD(v, local_port);
	s->port = v;
}

// to_daemon reports whether a connection may go to where the daemon listens.
static __always_inline int to_daemon(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct home *h = bpf_map_lookup_elem(&homes, &netns);
	return !h || !h->whole || sk->dst_port == h->tcp4 || sk->dst_port == h->tcp6;
}

enum coming { NOT_YET, THERE, NEVER };

// coming says whether the daemon listens where a connection that is held goes to.
static __always_inline enum coming coming(struct record *r, __u16 port)
{
	struct home *h = bpf_map_lookup_elem(&homes, &r->netns);
	if (h && port_of(h, r) == port)
		return THERE;
	return h && h->whole ? NEVER : NOT_YET;
}

// route4 reports whether a packet of IPv4 has a source route, or options that cannot be
// read.
static __always_inline int route4(struct __sk_buff *skb, __u8 first)
{
	__u8 options[64] = {};
	__u32 len = (first & 15) * 4, at = 0;
	if (len <= 20)
		return 0;
	len -= 20;
	if (len > 40 || bpf_skb_load_bytes(skb, 20, options, len))
		return 1;
	for (int i = 0; i < 40 && at < len; i++) {
		__u8 kind = options[at & 63];
		if (kind == IPOPT_END)
			return 0;
		if (kind == IPOPT_LSRR || kind == IPOPT_SSRR)
			return 1;
		at += kind == IPOPT_NOP ? 1 : options[(at + 1) & 63];
	}
	return 0;
}

// route6 does so for IPv6. One that holds another packet is a tunnel's, which was decided
// before it went in.
static __always_inline int route6(struct __sk_buff *skb, __u8 next)
{
	__u8 h[2], route = 0;
	__u32 at = 40;
	for (int i = 0; i < 4 && (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING); i++) {
		if (next == IPPROTO_ROUTING)
			route = 1;
		if (bpf_skb_load_bytes(skb, at, h, 2))
			return 1;
		next = h[0];
		at += (h[1] + 1) * 8;
	}
	return route && next != IPPROTO_IPIP && next != IPPROTO_IPV6;
}

// away reports whether a packet for loopback is about to leave.
static __always_inline int away(struct __sk_buff *skb, __u8 *header)
{
	__u32 to[4] = {};
	if (skb->ifindex == LOOPBACK_IFINDEX)
		return 0;
	if (header[0] >> 4 == 4)
		return header[16] == 127;
	return !bpf_skb_load_bytes(skb, 24, to, 16) && !to[0] && !to[1] && !to[2] && to[3] == bpf_htonl(1);
}

// stray reports whether a packet goes elsewhere than its socket says, and tells user
// space. Of a connection the first SYN is sent by its process, and what comes later by
// whoever is running.
static __always_inline int stray(struct __sk_buff *skb)
{
	__u8 *header = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (header + 20 > end)
		return 1; // of no packet that the kernel makes
	__u8 first = header[0], next = header[6];
	__u32 why = away(skb, header) ? AWAY : 0;
	if (!why && (first >> 4 == 4 ? !route4(skb, first) : !route6(skb, next)))
		return 0;
	if (!why)
		why = ROUTED;
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;
	if (!sk)
		return 1;
	int connection = sk->protocol == IPPROTO_TCP;
	if (connection && (bpf_sk_storage_get(&strays, sk, 0, 0) || !bpf_sk_storage_get(&strays, sk, 0, BPF_SK_STORAGE_GET_F_CREATE)))
		return 1;
	struct record r = {.unseen = why, .protocol = sk->protocol, .family = V6};
	if (!connection || sk->state == BPF_TCP_SYN_SENT)
		r.process = bpf_get_current_pid_tgid() >> 32;
	if (connection)
		r.port = sk->dst_port;
	r.user = bpf_get_socket_uid(skb);
	r.netns = bpf_get_netns_cookie(skb);
	if (first >> 4 == 4) {
		__u32 to = 0;
		bpf_skb_load_bytes(skb, 16, &to, 4);
		set_v4(&r, to);
	} else {
		bpf_skb_load_bytes(skb, 24, r.address, 16);
	}
	tell(&r);
	return 1;
}

// The SYN of a connection that is held is dropped, and TCP repeats it. So is the answer
// to one of somebody else that crosses it.
SEC("cgroup_skb/egress")
int hold(struct __sk_buff *skb)
{
	if (stray(skb))
		return 0;
	struct bpf_sock *sk = skb->sk;
	if (!sk || (sk->state != BPF_TCP_SYN_SENT && sk->state != BPF_TCP_SYN_RECV))
		return 1;
	sk = bpf_sk_fullsock(sk);
	struct record *r = sk ? bpf_sk_storage_get(&asked, sk, 0, 0) : 0;
	return !r || !r->held || coming(r, sk->dst_port) == THERE;
}

// repeat says when the SYN of a connection that is held is repeated, and ends that soon
// where the daemon will not come.
static __always_inline void repeat(struct bpf_sock_ops *ctx, enum coming coming)
{
	int once = 1;
	if (ctx->op == BPF_SOCK_OPS_TIMEOUT_INIT)
		ctx->reply = REPEAT;
	else if (coming == NEVER)
		bpf_setsockopt(ctx, IPPROTO_TCP, TCP_SYNCNT, &once, sizeof(once));
}

// Before the SYN leaves the record waits for the daemon, so that it cannot accept
// too early. A connection that is not made takes its record along. One that was made
// and closed at once is still accepted, with what it sent.
// What nobody accepted may have left another's record at the address: it is not that of
// a connection that was not sent to the daemon.
SEC("sockops")
int socket_states(struct bpf_sock_ops *ctx)
{
	struct source s = {};
	__u32 op = ctx->op;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB || op == BPF_SOCK_OPS_TIMEOUT_INIT || op == BPF_SOCK_OPS_RTO_CB) {
		struct bpf_sock *sk = ctx->sk;
		struct record *r = sk ? bpf_sk_storage_get(&asked, sk, 0, 0) : 0;
		if (!r) {
			if (op == BPF_SOCK_OPS_TCP_CONNECT_CB && sk && to_daemon(ctx, sk)) {
				source(ctx, &s);
				bpf_map_delete_elem(&waiting, &s);
			}
			return 1;
		}
		if (op != BPF_SOCK_OPS_TCP_CONNECT_CB) {
			if (r->held)
				repeat(ctx, coming(r, sk->dst_port));
			return 1;
		}
		source(ctx, &s);
		bpf_map_update_elem(&waiting, &s, r, BPF_ANY);
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG | (r->held ? BPF_SOCK_OPS_RTO_CB_FLAG : 0));
	} else if (op == BPF_SOCK_OPS_STATE_CB && ctx->args[0] == BPF_TCP_SYN_SENT && ctx->args[1] == BPF_TCP_CLOSE) {
		source(ctx, &s);
		bpf_map_delete_elem(&waiting, &s);
	}
	return 1;
}

