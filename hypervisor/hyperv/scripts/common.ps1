# consort hyper-v protocol 1: common

# Every request is its own script followed by this one. The request comes as one
# JSON document and, where bytes travel, as base64 beside it; the answer leaves
# as one line of JSON in ASCII, since the console's code page is nobody's choice.

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$ConfirmPreference = 'None'

# Stop-With ends the request with an error of one of Consort's kinds.
function Stop-With($Kind, $Message) {
    $e = New-Object System.Exception $Message
    $e.Data['kind'] = $Kind
    throw $e
}

# Get-Stored returns the full path of a file that we keep.
function Get-Stored($Name) {
    if ($Name -cnotmatch '^[a-z0-9][a-z0-9-]*(\\[a-z0-9][a-z0-9-]*)*(\.[a-z0-9]+)*$') {
        Stop-With 'invalid' ('{0} is not the name of a stored file' -f $Name)
    }
    [IO.Path]::Combine($script:Store, $Name)
}

function Get-MachineFolder($Id) { Get-Stored ('machines\{0}' -f $Id) }

# Write-Whole replaces a file at once: a reader finds the old text or the new.
function Write-Whole($Path, $Text) {
    $new = '{0}.new' -f $Path
    [IO.File]::WriteAllText($new, $Text)
    Move-Item -LiteralPath $new -Destination $Path -Force
}

function Read-Whole($Path) {
    if (Test-Path -LiteralPath $Path) { [IO.File]::ReadAllText($Path) } else { '' }
}

# Enter-Turn keeps every other request for the machine out until this process
# has ended, however it ends.
function Enter-Turn($Id) {
    $script:Turn = New-Object System.Threading.Mutex $false, ('Global\consort-{0}' -f $Id)
    try { $mine = $script:Turn.WaitOne(15000) }
    catch [System.Threading.AbandonedMutexException] { $mine = $true }
    if (-not $mine) { Stop-With 'busy' ('machine {0} is occupied by an earlier request' -f $Id) }
}

# Get-Mark returns the ID that we know a virtual machine by, or nothing.
function Get-Mark($Vm) {
    foreach ($line in ($Vm.Notes -split '\r?\n')) {
        if ($line -cmatch '^consort-machine: ([0-9a-f-]{36})$') { return $Matches[1] }
    }
}

function Find-Machine($Id) { Get-VM | Where-Object { (Get-Mark $_) -ceq $Id } | Select-Object -First 1 }

function Get-Machine($Id) {
    $vm = Find-Machine $Id
    if ($null -eq $vm) { Stop-With 'not-found' ('no machine {0}' -f $Id) }
    $vm
}

# Get-Resting returns a machine that is off, whose disks are not being merged.
function Get-Resting($Id) {
    $vm = Get-Machine $Id
    if (@('Off', 'Saved') -cnotcontains [string]$vm.State) {
        Stop-With 'conflict' ('machine {0} is {1}; stop it first' -f $Id, $vm.State)
    }
    foreach ($try in 1..60) {
        if ([string]$vm.SecondaryOperationalStatus -ne 'MergingDisks') { return $vm }
        Start-Sleep -Seconds 1
        $vm = Get-Machine $Id
    }
    Stop-With 'busy' ('the disks of machine {0} are being merged' -f $Id)
}

# Clear-Unfinished notes that the machine's definition has come to its end.
function Clear-Unfinished($Id) {
    $path = Join-Path (Get-MachineFolder $Id) 'making'
    if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path -Force }
}

function Clear-Saved($Vm) { if ([string]$Vm.State -ceq 'Saved') { Remove-VMSavedState -VM $Vm } }

# How often a machine was powered on: Starting is written before, Starts after.
function Read-Life($Id) {
    $text = Read-Whole (Join-Path (Get-MachineFolder $Id) 'life.json')
    if ($text -eq '') { return New-Object PSObject -Property @{ starts = 0; starting = 0; started = '' } }
    ConvertFrom-Json $text
}

function Write-Life($Id, $Life) {
    Write-Whole (Join-Path (Get-MachineFolder $Id) 'life.json') (ConvertTo-Json -InputObject $Life -Compress)
}

# Join-Disks attaches what is missing of the machine's disks, each to its place.
# The first is on IDE where the firmware is a BIOS, which starts from nothing else.
function Join-Disks($Vm, $Disks) {
    $have = @(Get-VMHardDiskDrive -VM $Vm)
    $slot = 0
    foreach ($disk in $Disks) {
        $type = 'SCSI'
        if ($slot -eq 0 -and $Vm.Generation -eq 1) { $type = 'IDE' }
        $there = @($have | Where-Object { [string]$_.ControllerType -eq $type -and $_.ControllerNumber -eq 0 -and $_.ControllerLocation -eq $slot })
        if ($there.Count -eq 0) {
            Add-VMHardDiskDrive -VM $Vm -ControllerType $type -ControllerNumber 0 -ControllerLocation $slot -Path (Get-Stored $disk.file)
        }
        $slot++
    }
}

# Get-Drive returns the drive at a disk's place.
function Get-Drive($Vm, $Slot) {
    Get-VMHardDiskDrive -VM $Vm | Where-Object {
        $_.ControllerNumber -eq 0 -and $_.ControllerLocation -eq $Slot -and
        ([string]$_.ControllerType -eq 'IDE') -eq ($Slot -eq 0 -and $Vm.Generation -eq 1)
    } | Select-Object -First 1
}

try {
    $request = ConvertFrom-Json $args[0]
    if ($request.version -ne 1) { Stop-With 'unsupported' ('this script speaks version 1, not {0}' -f $request.version) }
    $script:Store = $request.store
    $script:Payload = $null
    if ($args.Count -gt 1) { $script:Payload = [Convert]::FromBase64String($args[1]) }
    $script:Reply = $null
    $answer = @{ version = 1; result = (Invoke-Request $request.args) }
}
catch {
    $kind = [string]$_.Exception.Data['kind']
    $id = ''
    if ($kind -eq '') { $id = $_.FullyQualifiedErrorId }
    $answer = @{ version = 1; error = @{ kind = $kind; id = $id; message = $_.Exception.Message } }
    $script:Reply = $null
}
$json = ConvertTo-Json -InputObject $answer -Depth 8 -Compress
[regex]::Replace($json, '[^\x20-\x7e]', { param($m) '\u{0:x4}' -f [int][char]$m.Value })
if ($null -ne $script:Reply) { [Convert]::ToBase64String($script:Reply) }
