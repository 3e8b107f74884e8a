// Package cniconf tests a CNI plugin against the specification 1.1 from outside: it runs the plugin as container runtimes do and looks
// at what it prints and at the interfaces that it makes.
//
// Without flags the plugin is offload-cni, on a node of a lab. Any other plugin that makes interfaces can be tested too, as root:
//
//	go test ./integration/cniconf -plugin /opt/cni/bin/bridge -conf bridge.json
//
// where the file has a configuration without cniVersion and name. -args gives CNI_ARGS, in which %d is the container's number from
// 1 to 8. The plugin runs in a network namespace of its own. What is known to be otherwise in a plugin is left out by -skip of go test.
package cniconf
