// Command offloadctl shows and changes what offloadd does on this node, through its gRPC API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if code, is := probeChild(os.Args); is {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], environment())
	stop()
	os.Exit(code)
}
