// Package begin looks, before other packages begin, whether this process can.
package begin
