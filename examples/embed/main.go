// Command embed is the quick start as a service: a key-value store over HTTP
// whose storage is the process itself.
//
//	go run ./examples/embed -dir /tmp/a
//	curl -X PUT --data-binary hello localhost:8080/kv/greeting
//	curl -i localhost:8080/kv/greeting?level=one
//
// A second and a third node join the first, each with a directory and ports of
// its own. As yet they have to before anything is stored.
//
//	go run ./examples/embed -dir /tmp/a -listen 127.0.0.1:7001
//	go run ./examples/embed -dir /tmp/b -listen 127.0.0.1:7002 -seeds 127.0.0.1:7001 -http 127.0.0.1:8081
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"example.com/kvstore"
)

func main() {
	dir := flag.String("dir", "data", "`directory` of this node; \"\" keeps everything in memory")
	listen := flag.String("listen", "", "`address` for the other nodes (default none: a single node)")
	seeds := flag.String("seeds", "", "`addresses` of nodes to join, with commas between them")
	api := flag.String("http", "127.0.0.1:8080", "`address` of the HTTP API")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := &kvstore.Options{Listen: *listen, Logger: slog.Default()}
	if *seeds != "" {
		o.Seeds = strings.Split(*seeds, ",")
	}
	listener, err := net.Listen("tcp", *api)
	if err == nil {
		err = run(ctx, *dir, o, listener)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// run is a node and its API, until ctx is over.
func run(ctx context.Context, dir string, o *kvstore.Options, api net.Listener) error {
	defer api.Close()
	db, err := kvstore.Open(dir, o)
	if err != nil {
		return err
	}
	// The node is closed after the last request, and its error is not lost.
	return errors.Join(serve(ctx, db, api), db.Close())
}

// patience is how long a slow client may take, and may hold up the end.
const patience = 10 * time.Second

func serve(ctx context.Context, db *kvstore.DB, api net.Listener) error {
	if err := db.Ready(ctx); err != nil {
		return err
	}
	server := &http.Server{Handler: handler(db), ReadHeaderTimeout: patience, ReadTimeout: 3 * patience}
	down := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		down <- errors.Join(server.Shutdown(ctx), server.Close())
	})
	slog.Info("serving", "http", api.Addr())
	if err := server.Serve(api); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-down // until then requests are running
}
