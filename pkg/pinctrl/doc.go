// Package pinctrl answers and logs packets that need a program: those that a logical flow's controller action sends up.
//
// [Answer] and [Log] are pure: a packet-in becomes the packet-out that the flow asked for, or an entry of the ACL log.
// [Responder] is the door to the bridge.
package pinctrl
