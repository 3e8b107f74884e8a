// Build builds the module of package simnic, unless it is in the cache, and prints where it is:
//
//	SIMNIC=$(go run ./integration/simnic/build) go test -exec 'bin/vmrun -kernel qemu --' ./integration/simnic
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/offloadd/offloadd/integration/simnic"
)

func main() {
	file, err := simnic.Build(context.Background(), os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, file)
}
