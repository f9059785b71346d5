// Package transport carries messages between nodes: bounded, multiplexed,
// without a goroutine, a timer or an allocation per call.
//
// It has two layers. A [Transport] moves opaque messages over connections; it is
// the plug. [Stream] is the real one: frames over TCP, TLS or any other byte
// stream, as PROTOCOL.md specifies. [Network] is the one for tests: a whole
// network in memory that delays, loses, duplicates and reorders messages as a
// seed says. Other sockets are a Stream of ten lines, and a Transport from
// nothing takes some seventy; package transporttest says whether it is right.
//
// On top, over every Transport alike, is the [Mux]: calls with replies and
// deadlines, one-way messages, one connection per direction and pair of nodes,
// redialed for as long as it is wanted.
//
// Who writes, and when, decides the speed. Requests are appended to a buffer
// that a writer goroutine takes whole, so that requests that are sent together
// leave in one system call. Requests are handled in the connection's reader, one
// after the other, and the replies of a batch leave together when it ends.
// Therefore nothing that a reader runs may block: not a handler, not a
// completion, and never a write.
//
// A connection is a chain of bounded parts. What does not fit is refused at once
// with [ErrBusy]; nothing here waits for a slow peer.
package transport
