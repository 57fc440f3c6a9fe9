# consort hyper-v protocol 1: describe

# describe says what the host is and has. It makes the folder that
# we keep, and removes what a deletion that was cut left there.
function Invoke-Request($a) {
    $os = Get-CimInstance -ClassName Win32_OperatingSystem
    $h = Get-VMHost
    $store = Join-Path $h.VirtualMachinePath 'Consort'
    New-Item -ItemType Directory -Force -Path $store | Out-Null
    Remove-Item -LiteralPath (Join-Path $store 'gone') -Recurse -Force -ErrorAction SilentlyContinue
    $drive = New-Object System.IO.DriveInfo ([IO.Path]::GetPathRoot($store))
    @{
        product  = ('{0} {1}' -f $os.Caption, $os.Version).Trim()
        host     = $h.Name
        store    = $store
        cpus     = [int]$h.LogicalProcessorCount
        memory   = [long]$h.MemoryCapacity
        disk     = [long]$drive.TotalSize
        switches = @(Get-VMSwitch | ForEach-Object { [string]$_.Name } | Sort-Object -Unique)
    }
}
