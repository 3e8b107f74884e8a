// Package tc is TC flower filters: text as tc(8) takes it, bytes, connection.
//
// A [Filter] is the twin of an OpenFlow flow: an [ir.Match], actions, an order. It is built by pkg/specialize, checked by
// [Check] against the rules that keep the kernel from doing something else than what was asked for, encoded into the
// attributes of rtnetlink, and installed through a [Conn].
//
// Sources: tc-flower(8) and the manual pages of the actions, linux/pkt_cls.h, net/sched/cls_flower.c, net/sched/act_*.c.
package tc
