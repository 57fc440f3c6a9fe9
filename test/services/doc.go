// Package services puts a real service on real machines, and real desktops on two
// hypervisors, asks much of them and harms them, and looks at what their users get
// and what is decided.
package services
