// Build builds the module of package simnic for the kernel of a guest, unless it is in the cache, and prints where it is:
//
//	SIMNIC=$(go run ./integration/simnic/build -kernel qemu) go test -exec 'bin/vmrun -kernel qemu --' ./integration/simnic
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/offloadd/offloadd/integration/simnic"
	"github.com/offloadd/offloadd/integration/vm"
)

func main() {
	kernel := flag.String("kernel", string(vm.UML), "the kernel: uml, or qemu for Debian's own")
	flag.Parse()
	file, err := simnic.Build(context.Background(), vm.Kernel(*kernel), os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, file)
}
