// Package offloadv1 is the wire form of the API: what buf makes of the .proto files beside this one. docs/api.md is their
// reference, made by the same run.
package offloadv1

//go:generate go -C ../../.. tool -modfile=tools/buf/go.mod buf generate
