package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/fault"
)

// asked names an error of a question: where no answer came, nothing was done.
func asked(err error, format string, args ...any) error {
	return named(err, fault.Unavailable, format, args...)
}

// did names an error of an act: where no answer came, nobody knows.
func did(err error, format string, args ...any) error {
	return named(err, fault.OutcomeUnknown, format, args...)
}

// named says what was tried and gives the vendor's fault a kind, keeping its
// words. Silence is of the kind lost.
func named(err error, lost fault.Kind, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if kind := fault.KindOf(err); kind != fault.Internal {
		return kind.Errorf("%s: %w", what, err)
	}
	if f := vendorFault(err); f != nil {
		name := reflect.TypeOf(f).Elem().Name()
		return kindOf(f, lost).Errorf("%s: %w (%s)", what, err, name)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || soap.IsCertificateUntrusted(err) {
		lost = fault.Unavailable // it was never said
	}
	return lost.Errorf("%s: %w", what, err)
}

// vendorFault returns the typed fault in an error, or nil.
func vendorFault(err error) types.BaseMethodFault {
	var holds interface{ Fault() types.BaseMethodFault }
	if errors.As(err, &holds) {
		return holds.Fault()
	}
	return nil
}

// is reports whether the vendor's fault in err is a T.
func is[T types.BaseMethodFault](err error) bool {
	_, ok := vendorFault(err).(T)
	return ok
}

// kindOf gives a fault of the vSphere API a kind: the narrow types first, then
// the families they belong to. A general system error says nothing of how far
// the server came, so it is of the kind lost.
func kindOf(f types.BaseMethodFault, lost fault.Kind) fault.Kind {
	switch f.(type) {
	case *types.InvalidLogin, *types.NotAuthenticated, *types.NoClientCertificate:
		return fault.Unauthenticated
	case *types.NoPermission, *types.RestrictedVersion, *types.MethodDisabled:
		return fault.Denied
	case *types.ManagedObjectNotFound:
		if lost == fault.Unavailable {
			return lost // it went while we asked: ask again
		}
		return fault.NotFound
	case *types.NotFound:
		return fault.NotFound
	case *types.DuplicateName, *types.AlreadyExists, *types.FileAlreadyExists:
		return fault.Exists
	case *types.TaskInProgress, *types.ResourceInUse, *types.ConcurrentAccess, *types.FileLocked,
		*types.GuestOperationsUnavailable:
		return fault.Busy
	case *types.NoDiskSpace, *types.FileTooLarge, *types.OutOfBounds, *types.TooManyDevices:
		return fault.NoCapacity
	case *types.NotSupported, *types.NotImplemented, *types.MethodNotFound, *types.DeviceNotSupported,
		*types.ToolsUnavailable:
		return fault.Unsupported
	case *types.HostNotConnected, *types.HostNotReachable, *types.DatastoreNotWritableOnHost:
		return fault.Unavailable
	case *types.FileNotFound, *types.CannotAccessFile, *types.InvalidDatastore:
		return fault.Stuck
	case *types.SystemError, *types.SystemErrorFault, *types.RequestCanceled:
		return lost
	}
	switch f.(type) {
	case types.BaseInsufficientResourcesFault:
		return fault.NoCapacity
	case types.BaseHostCommunication, types.BaseHostConnectFault:
		return fault.Unavailable
	case types.BaseInvalidVmConfig, types.BaseInvalidArgument, *types.InvalidName, *types.InvalidProperty, *types.InvalidRequest:
		return fault.Invalid
	case types.BaseInvalidState:
		return fault.Conflict
	case types.BaseFileFault:
		return fault.Stuck
	}
	return fault.Internal
}
