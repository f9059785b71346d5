package main

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// raw passes bytes through, so that no encoding is measured.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("raw codec: %T", v)
	}
	return *b, nil
}

func (raw) Unmarshal(b []byte, v any) error {
	p, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("raw codec: %T", v)
	}
	*p = b
	return nil
}

const method = "/bench.Echo/Echo"

func serveGRPC() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "bench.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var b []byte
			if err := decode(&b); err != nil {
				return nil, err
			}
			return &b, nil
		},
	}}}, struct{}{})
	go s.Serve(ln)
	return ln.Addr().String(), nil
}

func runGRPC(addr string, callers, size int, count *counter, stop <-chan struct{}) error {
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return err
	}
	defer cc.Close()
	var all sync.WaitGroup
	failed := make(chan error, callers)
	for i := range callers {
		all.Go(func() {
			body, ctx := make([]byte, size), context.Background() // no deadline: it would cost gRPC more
			for !stopped(stop) {
				var reply []byte
				if err := cc.Invoke(ctx, method, &body, &reply); err != nil {
					failed <- err
					return
				}
				count.add(i, 1)
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}
