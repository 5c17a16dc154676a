//go:build ignore

// The kernel's part: connects and datagrams of a cgroup.
//
// What the policy decides by address, port, protocol and user alone is decided
// here, from cells that user space computed. A TCP connect that needs more, and an
// IPv4 datagram that a callout may redirect, are sent to the daemon's port with a
// record of what the program asked for; they never go where it asked for undecided.
// Anything else that needs more is refused.

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define EACCES 13

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// ASK is what the engine is asked about a connection, CALLOUT about a datagram, too.
enum verdict { ASK = 0, PERMIT = 1, BLOCK = 2, CALLOUT = 3 };

// family says at which layers an address is asked about.
enum family { V4 = 4, V6 = 6, MAPPED = 46 };

struct config {
	__u64 netns;      // cookie of the daemon's network namespace
	__u32 generation; // its lowest bit chooses the cells
	__u32 daemon;     // its process, whose own sockets are left alone
	__u16 port4, port6; // where it listens, network order
	__u16 datagrams;    // likewise, for those of IPv4
	__u16 tell;         // user space hears of what is permitted, too
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
};

// A source names a connection by the address that the daemon sees.
struct source {
	__u64 netns;
	__u8 address[16];
	__u16 port; // host order
	__u16 pad;
	__u32 pad2;
};

// A sending is a socket that sends datagrams to an address.
struct sending {
	__u64 cookie;
	__u32 address;
	__u16 port; // network order
	__u16 pad;
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

// waiting has the records of connections that the daemon has not accepted yet. A
// full map keeps what it has: the daemon refuses a connection without a record.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct source);
	__type(value, struct record);
} waiting SEC(".maps");

// flows has the records of datagrams, by the address that stands in for where they
// were going: one of 127.128.0.0/10 for each sending, so that the daemon knows it
// and answers from there. What a full map forgets gets another one.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, struct record);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct sending);
	__type(value, __u32);
} stand_ins SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

static __always_inline struct config *config(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&configs, &zero);
}

// decide looks the connection's cell up. Without one it is ASK.
static __always_inline void decide(struct config *c, struct record *r)
{
	__u32 parity = c->generation & 1;
	struct cell_key k = {
		.prefixlen = 64 + 128, .generation = parity, .family = r->family, .protocol = r->protocol,
	};
	if (r->protocol != IPPROTO_TCP && r->protocol != IPPROTO_UDP)
		k.protocol = 0;
	__u32 port = parity << 16 | bpf_ntohs(r->port);
	__u16 *class = bpf_map_lookup_elem(&port_classes, &port);
	if (class)
		k.port_class = *class;
	struct user_key u = {.generation = parity, .user = r->user};
	class = bpf_map_lookup_elem(&user_classes, &u);
	if (class)
		k.user_class = *class;
	__builtin_memcpy(k.address, r->address, 16);
	struct cell *cell = bpf_map_lookup_elem(&cells, &k);
	if (cell) {
		r->verdict = cell->verdict;
		r->filter = cell->filter;
	}
}

static __always_inline void who(struct bpf_sock_addr *ctx, struct record *r)
{
	r->process = bpf_get_current_pid_tgid() >> 32;
	r->user = (__u32)bpf_get_current_uid_gid();
	r->cookie = bpf_get_socket_cookie(ctx);
	r->cgroup = bpf_get_current_cgroup_id();
	r->protocol = ctx->protocol;
	r->port = ctx->user_port;
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
	bpf_ringbuf_output(&events, r, sizeof(*r), 0);
	bpf_set_retval(-EACCES);
	return 0;
}

// permit lets a connect go on.
static __always_inline int permit(struct config *c, struct record *r)
{
	if (c->tell)
		bpf_ringbuf_output(&events, r, sizeof(*r), 0);
	return 1;
}

// remember keeps the record with the socket. False is out of memory.
static __always_inline int remember(struct bpf_sock_addr *ctx, struct record *r)
{
	if (!ctx->sk)
		return 0;
	struct record *kept = bpf_sk_storage_get(&asked, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return 0;
	*kept = *r;
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

// stand_in returns the address that a socket's datagrams are to be sent to, 0 if
// there is none. A socket that connects gets a new one: its port may be another.
static __always_inline __u32 stand_in(struct bpf_sock_addr *ctx, struct config *c, struct record *r, int fresh)
{
	struct sending k = {.cookie = r->cookie, .address = v4_of(r), .port = r->port};
	if (r->verdict != CALLOUT || r->protocol != IPPROTO_UDP || r->family == V6 || !c->datagrams || bpf_get_netns_cookie(ctx) != c->netns)
		return 0;
	__u32 *known = bpf_map_lookup_elem(&stand_ins, &k);
	if (known && !fresh) {
		__u32 a = *known;
		struct record *f = bpf_map_lookup_elem(&flows, &a);
		if (f && f->cookie == r->cookie && v4_of(f) == k.address && f->port == k.port)
			return a;
	}
	for (int i = 0; i < 4; i++) {
		__u32 a = bpf_htonl(0x7f800000 | (bpf_get_prandom_u32() & 0x3fffff));
		if (bpf_map_update_elem(&flows, &a, r, BPF_NOEXIST) == 0) {
			bpf_map_update_elem(&stand_ins, &k, &a, BPF_ANY);
			return a;
		}
	}
	return 0;
}

// ours reports whether a program itself names the daemon's port for datagrams, with
// which it could speak for another one.
static __always_inline int ours(struct config *c, struct record *r)
{
	return r->protocol == IPPROTO_UDP && r->port == c->datagrams && r->family != V6 && r->address[12] == 127;
}

// its reports whether an address stands in for where the socket sends. The kernel asks
// about each datagram of a socket of IPv6 that is connected to an IPv4 address.
static __always_inline int its(struct record *r)
{
	__u32 a = v4_of(r);
	struct record *f = bpf_map_lookup_elem(&flows, &a);
	return f && f->cookie == r->cookie;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	who(ctx, &r);
	set_v4(&r, ctx->user_ip4);
	if (!c)
		return refuse(&r);
	forget(ctx); // of an earlier connect
	if (r.process == c->daemon)
		return 1;
	if (ours(c, &r))
		return refuse(&r);
	decide(c, &r);
	if (r.verdict == PERMIT)
		return permit(c, &r);
	if (r.verdict == BLOCK)
		return refuse(&r);
	__u32 to = r.protocol == IPPROTO_TCP ? bpf_htonl(0x7f000001) : stand_in(ctx, c, &r, 1);
	if (!to || !remember(ctx, &r))
		return refuse(&r);
	ctx->user_ip4 = to;
	ctx->user_port = r.protocol == IPPROTO_TCP ? c->port4 : c->datagrams;
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	who(ctx, &r);
	set_v6(ctx, &r);
	if (!c)
		return refuse(&r);
	forget(ctx);
	if (r.process == c->daemon)
		return 1;
	if (ours(c, &r))
		return refuse(&r);
	decide(c, &r);
	if (r.verdict == PERMIT)
		return permit(c, &r);
	if (r.verdict == BLOCK)
		return refuse(&r);
	__u32 to = r.protocol == IPPROTO_TCP ? bpf_htonl(0x7f000001) : stand_in(ctx, c, &r, 1);
	if (!to || !remember(ctx, &r))
		return refuse(&r);
	if (r.family == MAPPED) {
		ctx->user_ip6[3] = to;
		ctx->user_port = r.protocol == IPPROTO_TCP ? c->port4 : c->datagrams;
		return 1;
	}
	ctx->user_ip6[0] = ctx->user_ip6[1] = ctx->user_ip6[2] = 0;
	ctx->user_ip6[3] = bpf_htonl(1);
	ctx->user_port = c->port6;
	return 1;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	who(ctx, &r);
	set_v4(&r, ctx->user_ip4);
	if (!c)
		return refuse(&r);
	if (r.process == c->daemon)
		return 1;
	if (ours(c, &r))
		return its(&r) ? 1 : refuse(&r);
	decide(c, &r);
	if (r.verdict == PERMIT)
		return 1;
	__u32 to = stand_in(ctx, c, &r, 0);
	if (!to)
		return refuse(&r);
	ctx->user_ip4 = to;
	ctx->user_port = c->datagrams;
	return 1;
}

// Those of IPv6 have no addresses to stand in: what is not decided is refused.

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct config *c = config();
	struct record r = {};
	who(ctx, &r);
	set_v6(ctx, &r);
	if (c && r.process == c->daemon)
		return 1;
	if (c)
		decide(c, &r);
	return r.verdict == PERMIT ? 1 : refuse(&r);
}

// answered is the record of the datagrams that one from an address answers.
static __always_inline struct record *answered(struct bpf_sock_addr *ctx, __u32 from)
{
	struct config *c = config();
	if (!c || ctx->user_port != c->datagrams)
		return 0;
	struct record *r = bpf_map_lookup_elem(&flows, &from);
	return r && r->cookie == bpf_get_socket_cookie(ctx) ? r : 0;
}

// An answer comes from whom the program asked.
SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct record *r = answered(ctx, ctx->user_ip4);
	if (r) {
		ctx->user_ip4 = v4_of(r);
		ctx->user_port = r->port;
	}
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	if (ctx->user_ip6[0] || ctx->user_ip6[1] || ctx->user_ip6[2] != bpf_htonl(0xffff))
		return 1;
	struct record *r = answered(ctx, ctx->user_ip6[3]);
	if (r) {
		ctx->user_ip6[3] = v4_of(r);
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
		__u32 a;
		__builtin_memcpy(&a, r->address + 12, 4);
		ctx->user_ip4 = a;
		ctx->user_port = r->port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct record *r = ctx->sk ? bpf_sk_storage_get(&asked, ctx->sk, 0, 0) : 0;
	if (r) {
		__u32 a[4];
		__builtin_memcpy(a, r->address, 16);
		ctx->user_ip6[0] = a[0];
		ctx->user_ip6[1] = a[1];
		ctx->user_ip6[2] = a[2];
		ctx->user_ip6[3] = a[3];
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

// Before the SYN leaves the record waits for the daemon, so that it cannot accept
// too early. A connection that ends unaccepted takes its record along.
SEC("sockops")
int socket_states(struct bpf_sock_ops *ctx)
{
	struct source s = {};
	__u32 op = ctx->op;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		struct record *r = ctx->sk ? bpf_sk_storage_get(&asked, ctx->sk, 0, 0) : 0;
		if (!r)
			return 1;
		source(ctx, &s);
		bpf_map_update_elem(&waiting, &s, r, BPF_ANY);
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	} else if (op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE) {
		source(ctx, &s);
		bpf_map_delete_elem(&waiting, &s);
	}
	return 1;
}

