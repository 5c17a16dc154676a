package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// SecurityDescriptor names a security descriptor that WSK_CACHE_SD cached. Zero
// is none.
type SecurityDescriptor uint64

const sdHeader = 20 // sizeof(SECURITY_DESCRIPTOR_RELATIVE)

// validSD is RtlValidRelativeSecurityDescriptor as far as the header goes.
func validSD(b []byte) bool {
	const selfRelative = 0x8000
	if len(b) < sdHeader || b[0] != 1 || le.Uint16(b[2:])&selfRelative == 0 {
		return false
	}
	for off := 4; off < sdHeader; off += 4 {
		if o := le.Uint32(b[off:]); o != 0 && (o < sdHeader || uint64(o) >= uint64(len(b))) {
			return false
		}
	}
	return true
}

// cacheSD answers WSK_CACHE_SD: in is a self-relative descriptor, out gets the
// 8 bytes that name it from then on.
func (c *Client) cacheSD(in, out []byte) (ntstatus.Status, int) {
	switch {
	case !validSD(in):
		return ntstatus.InvalidParameter, 0
	case len(out) < 8:
		return ntstatus.BufferOverflow, 8
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastSD++
	c.security[c.lastSD] = struct{}{}
	return putSize(out, uint64(c.lastSD))
}

// releaseSD answers WSK_RELEASE_SD. Sockets that use the descriptor keep working.
func (c *Client) releaseSD(in, _ []byte) (ntstatus.Status, int) {
	if len(in) != 8 {
		return ntstatus.InvalidParameter, 0
	}
	sd := SecurityDescriptor(le.Uint64(in))
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.security[sd]; !ok {
		return ntstatus.InvalidParameter, 0
	}
	delete(c.security, sd)
	return ntstatus.Success, 0
}

func (c *Client) cached(sd SecurityDescriptor) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.security[sd]
	return ok
}

// setSecurity answers SO_WSK_SECURITY: the 8 bytes of WSK_CACHE_SD, before bind.
func (s *Socket) setSecurity(_ uint32, in, _ []byte) (ntstatus.Status, int) {
	switch {
	case len(in) != 8 || !s.client.cached(SecurityDescriptor(le.Uint64(in))):
		return ntstatus.InvalidParameter, 0
	case s.state != unbound:
		return ntstatus.InvalidDeviceState, 0
	}
	s.opts.security = SecurityDescriptor(le.Uint64(in))
	return ntstatus.Success, 0
}
