package transport_test

import (
	"fmt"
	"time"

	"example.com/kvstore/transport"
)

// A reply hands on what a call ends with.
type reply chan string

func (r reply) Complete(_ uint64, body []byte, err error) {
	r <- fmt.Sprint(string(body), " ", err) // body dies with the return
}

// A node answers the calls of another one.
func ExampleMux() {
	open := func(name string, handle func(*transport.Request)) *transport.Mux {
		m, err := transport.NewMux(transport.TCP(), transport.MuxConfig{
			Listen:   "127.0.0.1:0",
			Identity: func() transport.Identity { return transport.Identity{Name: "example", Node: name} },
			Handle:   handle,
		})
		if err != nil {
			panic(err)
		}
		return m
	}
	b := open("b", func(r *transport.Request) { r.Reply([]byte("hello, "), r.Body) })
	defer b.Close()
	a := open("a", nil)
	defer a.Close()

	done := make(reply, 1)
	const greet = 1 // an operation of the caller's choice
	if err := a.Peer(b.Addr()).Call(greet, time.Now().Add(5*time.Second), nil, []byte("world"), done, 0); err != nil {
		panic(err)
	}
	fmt.Println(<-done)
	// Output: hello, world <nil>
}
