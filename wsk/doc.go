// Package wsk is Winsock Kernel over real sockets: registration, sockets in
// their categories, IRPs, and the WFP ioctls by which a proxy asks whom a
// redirected connection was for.
//
// How C becomes Go:
//
//  1. The prefix Wsk is the package. WskCaptureProviderNPI is a method of the
//     Registration, the calls of the provider's dispatch table are methods of
//     the Client, those of a socket's are methods of the Socket.
//  2. Underscores and version digits go, initialisms stay capital.
//  3. A pointer with its size is one slice, so that a size without a pointer
//     cannot be written (AMB-12). A client's dispatch table is a struct of
//     funcs in which nil is NULL. OwningThread has no counterpart and is left out.
//  4. The C name stands in the doc comment.
//
// A call with an IRP completes it on every path, also for a wrong parameter
// (WSK-RET-05): the status it returns is the IRP's, unless it is
// STATUS_PENDING. A call on a socket of the wrong category ends with
// STATUS_INVALID_DEVICE_REQUEST. A nil IRP where one is required is
// STATUS_INVALID_PARAMETER (WSK-RET-06), for ControlSocket
// STATUS_REQUEST_NOT_ACCEPTED (WSK-CTL-04). Buffers belong to WSK until the IRP
// is completed.
//
// The Client's sockets take the layers of an ale.Enforcer: a connect can be
// redirected or blocked, and an accepted socket has its redirect records.
package wsk
