// Package pinctrl answers packets that need a program: those that a logical flow's controller action sends up.
//
// [Answer] is pure: a packet-in becomes the packet-out that the flow asked for. [Responder] is the door to the bridge.
package pinctrl
